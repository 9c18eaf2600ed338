"""What readers of a report have to keep in mind: every caveat that applies to these runs, the heaviest first."""

from itertools import pairwise

from lungdet.evaluation.answer import seeds
from lungdet.evaluation.gathering.models import STARTED_FROM
from lungdet.evaluation.sections import SECTIONS, data_and_split, search
from lungdet.evaluation.sections.contract import without_peers
from lungdet.evaluation.statistics.intervals import SEEDS_NEEDED
from lungdet.page.wording import finding_name, join, label, number, percent, unit
from lungdet.runs.learnt import why_unsearched

FEW_PATIENTS = 100
COVERAGE_AT_40 = "94 to 96 of 100, those of the calibration error in 91"
"""Found by `make drills`."""
STUDY_DIFFERENCE = 0.016
"""What the study found between its two models, in accuracy."""
ABNORMAL = {"findings": "any of 14 tags", "tuberculosis": "tuberculosis", None: "whatever its table calls so"}
"""What `abnormal` means, by a data sheet's word for it."""
LOOKED_FOR = {
    "findings": "never looked for tuberculosis",
    "tuberculosis": "looked for tuberculosis alone",
    None: "looked for what its table names",
}
"""What readers or tags were about, likewise."""


def caveats(summary: dict) -> list[str]:
    """Every caveat: on the images, of the sections, and on the runs."""
    of_runs = without_peers(summary)
    return [
        *_of_images(summary["data"]),
        *[caveat for section in SECTIONS for caveat in section.caveats(summary)],
        *_of_seeds(of_runs),
        *_about_size(summary),
        *_of_labels(of_runs),
        *_about_parts(summary),
        *_of_runs(of_runs),
    ]


def _of_images(data: dict) -> list[str]:
    """Whether real radiographs were tested, unseen ones, and whose they are."""
    doubts = []
    if data["synthetic"]:
        doubts.append("The images are synthetic phantoms: nothing here says how a model reads real radiographs.")
    if data["external"] and data["known_sources"]:
        doubts.append(
            f"No external test: {join(data['known_sources'])} was learnt from too; these are images of patients that "
            "the runs had not seen."
        )
    if not data["patients_known"]:
        doubts.append(
            "Nothing says which images are of one patient: each counts as a patient of its own, and `patients` means "
            "images wherever the word stands below. Images of one patient may have been trained on and tested, which "
            "flatters, and intervals are too narrow then. Give the table a column `patient_id`."
        )
    if data["unsearched"]:
        doubt = "Whether this is an external test is not known. " if data["external"] else ""
        doubts.append(
            f"{doubt}These images may have been learnt from under other names: they could not be compared with those "
            f"{join([why_unsearched(run) for run in data['unsearched']])}."
        )
    return doubts


def _of_seeds(summary: dict) -> list[str]:
    """Too few seeds, or not the same."""
    doubts = []
    if min(len(block["seeds"]) for block in summary["models"].values()) < SEEDS_NEEDED:
        doubts.append(
            f"{seeds(summary).capitalize()} a model: an interval from fewer than {SEEDS_NEEDED} seeds covers the "
            f"choice of test {unit(summary['data'])}s only, so what is said holds of these very runs and not of the "
            "models. Train more, with `seed=0,1,2`."
        )
    if len({tuple(block["seeds"]) for block in summary["models"].values()}) > 1:
        counts = [f"{label(name)} {', '.join(map(str, block['seeds']))}" for name, block in summary["models"].items()]
        doubts.append(f"The models were not trained with the same seeds: {'; '.join(counts)}.")
    return doubts


def _of_labels(summary: dict) -> list[str]:
    """What the labels are worth, and what the study's published numbers are about."""
    data, datasets, doubts = summary["data"], list(summary["data"]["test_datasets"]), []
    sources = sorted({*datasets, *data["learnt_from"]})
    if summary["published"]:
        doubts.append(
            "The study's published rows do not compare: they are on other images, and its text does not say whether "
            "patients or images were split. Which results share this protocol: [Data and split](#data-and-split)."
        )
    if mined := [name for name in sources if data["sheets"][name]["labels_from"] == "reports"]:
        doubts.append(
            f"The labels of {join(mined)} were mined from reports by text analysis, not read from the images: a part "
            "of them is wrong, wherever this source was learnt from or tested on."
        )
    if meanings := data_and_split.meanings(data):
        doubts.append(_pooled(summary["task"], meanings))
    recorded = any("dataset" in (block["shortcuts"] or {}) for block in summary["models"].values())
    if len(datasets) > 1 and data["source_alone_auroc"] is not None and not recorded:
        doubts.append(
            f"The source alone predicts the label with an AUROC of {data['source_alone_auroc']:.3f} (each image "
            "given its dataset's share of abnormal images): a model may gain as much by recognising the source."
        )
    return doubts


def _of_runs(summary: dict) -> list[str]:
    """In what the runs differ, and which are missing."""
    doubts = []
    if summary["settings_that_differ"]:
        expected = {"model._target_", STARTED_FROM, *search.searched(summary)}
        keys = [f"`{key}`" for key in summary["settings_that_differ"] if key not in expected]
        if keys:
            doubts.append(f"The models differ in more than their class: {join(keys)}.")
    conditions = {(tuple(block["hardware"]), tuple(block["precision"])) for block in summary["models"].values()}
    if len(conditions) > 1 or any(len(part) > 1 for condition in conditions for part in condition):
        doubts.append("Not all runs used the same hardware and precision: their times and memory cannot be compared.")
    if summary["not_evaluated"]:
        doubts.append(
            f"{number(len(summary['not_evaluated']), 'run')} could not be evaluated (listed under Runs); every mean "
            "is over the rest."
        )
    return doubts


def _pooled(task: str, meanings: dict[str | None, list[str]]) -> str:
    """What pooling sources means for the labels."""
    sources = join(sorted(name for names in meanings.values() for name in names))
    if task != "abnormal":
        looked = [f"{join(names)} {LOOKED_FOR[meaning]}" for meaning, names in meanings.items()]
        return (
            f"{sources} do not say the same of an image: {join(looked)}. Each finding is measured on the images whose "
            "source says something of it."
        )
    clauses = [f"{ABNORMAL[meaning]} in {join(names)}" for meaning, names in meanings.items()]
    return f"`abnormal` does not mean the same in {sources}: {join(clauses)}. Read each dataset apart."


def _about_parts(summary: dict) -> list[str]:
    """Findings or classes that the test part lacks, unlabelled images, validation unlike test."""
    data, doubts = summary["data"], []
    if summary["task"] != "abnormal":
        counted = next(iter(summary["models"].values()))["macro"]
        if counted["left_out"]:
            names = join([finding_name(finding) for finding in counted["left_out"]])
            doubts.append(
                f"Means are over {counted['findings']} of {counted['of']} findings: {names} can't be measured on these "
                "images."
            )
        return doubts
    doubts += [
        f"{dataset}: every labelled test image is {'abnormal' if counts['abnormal'] else 'normal'} "
        f"({counts['labelled']} images), so metrics that need both are undefined there."
        for dataset, counts in data["test_datasets"].items()
        if counts["labelled"] and counts["abnormal"] in (0, counts["labelled"])
    ]
    unlabelled = data["test"]["images"] - data["test"]["labelled"]
    if unlabelled:
        doubts.append(f"{number(unlabelled, 'test image')} without a label count in no metric.")
    for part, sides in data["parts"].items():
        shares = [side["abnormal"] / side["labelled"] for side in (sides["val"], sides["test"]) if side["labelled"]]
        if any(abs(share - next_share) > 0.1 for share, next_share in pairwise(shares)):
            prefix = f"{part}: " if summary["parts"] else ""
            doubts.append(
                f"{prefix}{percent(shares[0])} of the validation images are abnormal and {percent(shares[1])} of the "
                "test images: a threshold chosen on the one need not suit the other."
            )
    return doubts


def _about_size(summary: dict) -> list[str]:
    """Which differences this test part could not show, and whether its intervals can be trusted."""
    patients, doubts = number(summary["data"]["test"]["patients"], unit(summary["data"])), []
    if summary["task"] == "abnormal":
        ends = [comparison["metrics"]["accuracy"]["interval"] for comparison in summary["comparisons"]]
        ends = ends or [block["test_interval"]["accuracy"] for block in summary["models"].values()]
        half = max((high - low for low, high in filter(None, ends)), default=0) / 2
        if half > STUDY_DIFFERENCE:
            subject = "a difference between models" if summary["comparisons"] else "an accuracy"
            studied = {comparison["second"].role for comparison in summary["comparisons"]} == {"cnn_lstm"}
            beside = f", while the study's two models lie {100 * STUDY_DIFFERENCE:.1f} points apart" if studied else ""
            doubts.append(
                f"The test part is small: with {patients} {subject} is known to about ±{100 * half:.1f} points of "
                f"accuracy{beside}."
            )
    if summary["data"]["test"]["patients"] < FEW_PATIENTS:
        doubts.append(
            f"Intervals from {patients} are rough: in simulated studies of 40 patients, intervals "
            f"of 95 % held the truth in {COVERAGE_AT_40}."
        )
    return doubts
