"""Comparability: which published results share the way the images were split, and which do not compare.

Sources:
- Wang et al. 2017, arXiv 1705.02315, appendix B.2: ChestX-ray14 split about 70:10:20 by patient, AUROC by finding
  "using published data split" (table 17); the lists are those on the dataset's page.
- Rajpurkar et al. 2017, CheXNet, arXiv 1711.05225, section 5: an own random 70:10:20 split without patient overlap.
- The study's text gives the ratio 70:15:15 and not the unit that was drawn.
"""

from lungdet.page.wording import unit

STUDY_FRACTIONS = [0.7, 0.15, 0.15]
OFFICIAL_TEST = 25_596
"""Images on ChestX-ray14's published test list."""
TRAINED_ON = {"train_fraction": 1.0, "train_prevalence": None, "train_on": None}
"""The settings of a model that say which part of the training images it was trained on, and how they usually are."""


def sentence(summary: dict) -> str:
    """What the runs' protocol is and what it compares with, in a few sentences."""
    split, data = summary["split"], summary["data"]
    if data["synthetic"]:
        return "Protocol: synthetic phantoms. No published result is on these images."
    if data["external_test"]:
        return (
            f"Protocol: an external test on {data['external']}. It compares with published external tests on the same "
            "images with the same label, and not with results of models that were trained on that dataset."
        )
    if data["external"]:
        return (
            f"Protocol: other data, {data['external']}, and not known to be an external test (see [What to keep in "
            "mind](#what-to-keep-in-mind)). It does not compare with published external tests."
        )
    text = [_ABOUT[split["protocol"]](summary)]
    drawn = " ".join(filter(None, (split["protocol"], split["file"])))
    called = summary["parts"]["family"] if summary["parts"] else drawn
    if not _published(data):
        text = [f"Protocol: {called}, on images that no published result is known to be on."]
    elif part := _partial(summary):
        text.append(f"Only {part} are at hand, so that even a published result with this protocol is on other images.")
    settings = [[block["settings"].get(key) for key in TRAINED_ON] for block in summary["models"].values()]
    differ = any(model_settings != settings[0] for model_settings in settings)
    return " ".join([*text, *(["The models' names say what each was trained on."] if differ else _narrowed(split))])


def _narrowed(split: dict) -> list[str]:
    """What was left out of training, see `lungdet.data.splitting.narrowing`."""
    text = []
    if split["train_fraction"] != 1:
        text.append(
            f"Trained on {100 * split['train_fraction']:g} % of the training patients, validation and test unchanged: "
            "published results used all of them."
        )
    if split["train_on"] is not None:
        text.append(f"Trained and tuned on {', '.join(split['train_on'])} alone, test unchanged.")
    if split["train_prevalence"] is not None:
        text.append(
            f"Training images were left out until {100 * split['train_prevalence']:g} % of them were abnormal, "
            "validation and test unchanged."
        )
    return text


def _random(summary: dict) -> str:
    drawn, fractions = unit(summary["data"]), summary["split"]["fractions"]
    shares = ":".join(f"{100 * share:g}" for share in fractions) if fractions else ""
    ratio = f" ({shares})" if shares else ""
    study = (
        "The study has the same ratio, but its text does not say whether it drew patients or images: if images, "
        "patients tested had been trained on too"
        if fractions is None or list(fractions) == STUDY_FRACTIONS
        else "The study's ratio is another, 70:15:15, and its text does not say whether it drew patients or images"
    )
    return (
        f"Protocol: {drawn}s drawn at random{ratio}, no {drawn} in two parts. {study}. No published result is on this "
        f"very draw{_chestxray14(summary, _RANDOM_TOO)}."
    )


def _official(summary: dict) -> str:
    comparable = (
        "AUROCs by finding compare with papers that state that they test on that list, such as Wang et al. 2017 "
        "(arXiv version, appendix B.2; labels of the first release)"
        if summary["task"] == "findings"
        else "Papers that test on that list, such as Wang et al. 2017 (arXiv version, appendix B.2), report AUROC by "
        "finding (`task=findings`); normal against abnormal compares only with papers that report just this"
    )
    return (
        f"Protocol: ChestX-ray14's published test list, validation cut from the rest by patient. {comparable}. "
        "CheXNet (Rajpurkar et al. 2017) does not compare: it drew a random split of its own, 70:10:20 by patient. Nor "
        "does the study, which drew 70:15:15."
    )


def _folds(summary: dict) -> str:
    of = len(summary["parts"]["of"])
    return (
        f"Protocol: {of} folds by {unit(summary['data'])}; each image is tested once, by a network that had not seen "
        f"{'its patient' if summary['data']['patients_known'] else 'it'}. No "
        "published result shares these folds, and results on a single test part, such as the study's"
        f"{_chestxray14(summary, _LIST_TOO)}, do not compare."
    )


def _without(summary: dict) -> str:
    return (
        "Protocol: a whole source held out, the others trained on. It compares with published tests on a source that "
        "was not trained on, with the same label and images; not with the study, which trained and tested on all "
        f"sources mixed{_chestxray14(summary, _WITHIN_TOO)}."
    )


def _file(summary: dict) -> str:
    return (
        f"Protocol: the user's own split, `{summary['split']['file']}`. It compares with results on the same table "
        "alone."
    )


_ABOUT = {
    "random": _random,
    "official": _official,
    "folds": _folds,
    "leave_one_source_out": _without,
    "file": _file,
}
_RANDOM_TOO = (
    ". CheXNet (Rajpurkar et al. 2017) also drew patients of ChestX-ray14 at random, 70:10:20, but other ones; results "
    "on the published test list (Wang et al. 2017) do not compare"
)
_LIST_TOO = ", CheXNet's or those on ChestX-ray14's published test list"
_WITHIN_TOO = ", nor with CheXNet or results on the published test list, whose models were trained on ChestX-ray14"


def _published(data: dict) -> bool:
    return bool({"chestxray14", "montgomery", "shenzhen"} & _sources(data))


def _chestxray14(summary: dict, clause: str) -> str:
    """A part of a sentence that only reports with this source have."""
    return clause if "chestxray14" in _sources(summary["data"]) else ""


def _sources(data: dict) -> set[str]:
    return {*data["test_datasets"], *data["learnt_from"]}


def _partial(summary: dict) -> str:
    """`92 of the list's 25,596 images`, or `450 of 112,120 images of chestxray14`, where not all are there."""
    tested = summary["data"]["test"]["images"]
    if summary["split"]["protocol"] == "official" and tested < OFFICIAL_TEST:
        return f"{tested:,} of the list's {OFFICIAL_TEST:,} images"
    return " and ".join(
        f"{source['images']:,} of {source['of']:,} images of {name}"
        for name, source in summary["data"]["sources"].items()
        if source["of"] and source["images"] < source["of"]
    )
