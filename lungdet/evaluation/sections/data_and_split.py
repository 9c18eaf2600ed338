"""Data and split: which images were tested and learnt from, how they were prepared, and how they were split."""

import pandas as pd

from lungdet.evaluation.sections import comparability
from lungdet.evaluation.sections.contract import Section, Study
from lungdet.evaluation.statistics import metrics
from lungdet.evaluation.statistics.cases import or_none
from lungdet.evaluation.statistics.measure import counts
from lungdet.page.document import Details, Items, Table, Text
from lungdet.page.wording import counted, number, pictured, share_of, unit
from lungdet.runs.learnt import origins

FACTS = ("labels_from", "abnormal", "synthetic")
"""Of a data sheet what the report goes by, beside the number of images."""


def measure(study: Study) -> dict:
    """Which data was tested and learnt from, and how it was split."""
    return {"data": _data(study), "split": _split(study)}


def tell(summary: dict) -> list:
    """Images and patients by part and by dataset, how images were resized, the split and its hashes."""
    data = summary["data"]
    protocol = Details("Which published results this compares with", [Text(comparability.sentence(summary))])
    return [
        *([Text(_other_data(data))] if data["external"] else []),
        Items([f"{line}." for line in _facts(summary)]),
        protocol,
        Details("Each part, with its hash", [_parts(data, summary["split"])]),
    ]


SECTION = Section(
    "Data and split",
    measure=measure,
    meanings={"source_alone_auroc": "0.5 for a single dataset; null where the test part holds one class"},
    tell=tell,
    claim=(7, 8, 9, 10, 19, 20, 32, 33, 35, 36),
)


def meanings(data: dict) -> dict[str | None, list[str]]:
    """Which sources, tested or learnt from, mean what by `abnormal`; empty where all are known to mean the same."""
    sources: dict[str | None, list[str]] = {}
    for name in sorted({*data["test_datasets"], *data["learnt_from"]}):
        sources.setdefault(data["sheets"][name]["abnormal"], []).append(name)
    alike = len(sources) == 1 and (None not in sources or len(sources[None]) == 1)
    return {} if alike else sources


def source_alone(test: pd.DataFrame) -> float:
    """AUROC of an answer that knows an image's source and nothing of its pixels: the source's own share of abnormal.

    The shares are those of the test images themselves, so this is the most that the source could give away.
    """
    share = test.groupby("dataset").target_abnormal.transform("mean").fillna(0)
    return metrics.auroc(test.target_abnormal, share)


def _other_data(data: dict) -> str:
    return (
        f"Other data was scored by finished runs: {data['external']}, {counted(data['test'], data)}, "
        "at the thresholds that their own validation images chose. Images of patients whom a run, or one that "
        "it started from, was trained or tuned on are left out, with them those who have an image that was "
        f"learnt from under another name ({number(data['scored']['copies'], 'such image')}). "
        f"{number(data['scored']['excluded'], 'image')} could not be used. What follows are the runs' own data "
        "and split."
    )


def _facts(summary: dict) -> list[str]:
    """Of how many images and patients from where, how they were prepared, and by which split."""
    data, split = summary["data"], summary["split"]
    lines = [pictured(data, data)]
    for name, source in data["sources"].items():
        part = f", of {source['of']:,} images" if source["of"] not in (None, source["images"]) else ""
        lines.append(f"{name}: {pictured(source, data)}{part}")
    resize = {
        "squash": "squeezed to a square (`squash`)",
        "pad": "padded to a square (`pad`)",
        "crop": "cropped to a square (`crop`)",
    }[data["resize"]]
    lines.append(f"Every image was {resize}, {data['image_size']} x {data['image_size']} pixels")
    lines.append(
        f"{number(data['excluded'], 'unreadable or unusable image')} left out; "
        f"data fingerprint `{data['fingerprint'][:16]}`"
    )
    if (count := len(data["views"])) > 1:
        kinds = [
            *(["mirrored"] if any(view["mirrored"] for view in data["views"]) else []),
            *([f"moved by {farthest:.3g} of the side"] if (farthest := max(v["right"] for v in data["views"])) else []),
        ]
        lines.append(
            f"Test-time augmentation: an image's log-odds are the mean over {count} views of it ({', '.join(kinds)}), "
            "in validation, where thresholds are chosen, and in test"
        )
    seed = "" if split.get("seed") is None else f", seed {split['seed']}"
    hashes = ", ".join(f"`{value}`" for value in split["hashes"])
    name = summary["parts"]["family"] if summary["parts"] else f"{split['name']}{seed}"
    return [*lines, f"Split `{name}`, by {unit(data)}, hash {hashes}"]


def _parts(data: dict, split: dict) -> Table:
    """Of each part, and of each dataset in what was tested, images, patients and the share that is abnormal."""

    def row(part: str, dataset: str, block: dict, part_hash: str = "") -> list[str]:
        patients = f"{block['patients']:,}" if data["patients_known"] else "not known"
        abnormal = share_of(block["abnormal"], block["labelled"])
        return [part, dataset, f"{block['images']:,}", patients, abnormal, part_hash]

    rows = [
        row(side if len(split["by_part"]) == 1 else f"{part}: {side}", "all", block, block["hash"])
        for part, sides in split["by_part"].items()
        for side, block in sides.items()
    ]
    [*_, last] = data["parts"].values()
    scored = {"other data" if data["external"] else "test": data["test_datasets"]}
    if len(data["parts"]) == 1:
        scored = {"val": last["val_datasets"]} | scored
    for part, datasets in scored.items():
        if len(datasets) > 1 or part == "other data":
            rows += [row(part, name, block) for name, block in datasets.items()]
    return Table(["Part", "Dataset", "Images", "Patients", "Abnormal", "Hash"], rows, 2)


def _data(study: Study) -> dict:
    """What the report says of the data: the environment's own facts, and counts of what was tested.

    Of the sources tested on, `known_sources` were learnt from by a run that is tested on them, and `new_sources` were
    not by one. `unsearched` says why images could not be compared with those that a run has learnt from. An
    `external_test` is on other data, of no known source, none of it learnt from under another name, by networks that
    began with no published weights of which nobody knows what they have seen.
    """
    replicate, external, test = study.first, study.external, study.first.test
    tested = [({*result.test.dataset}, result.learnt_from) for result in study.results]
    known = set().union(*[datasets & sources for datasets, sources in tested])
    facts = [result.test.attrs["scored"] if external else result.run.environment for result in study.results]
    unknown = any(weights["seen"] is None for result in study.results for weights in origins(result.run))
    unsearched = {tuple(run.items()) for run_facts in facts for run in run_facts.get("unsearched", [])}
    return replicate.first.run.environment["data"] | {
        "external": external,
        "views": [view._asdict() for view in study.results[0].views],
        "patients_known": study.patients_known,
        "external_test": bool(external) and not known and not unsearched and not unknown,
        "known_sources": sorted(known),
        "new_sources": sorted(set().union(*[datasets - sources for datasets, sources in tested])),
        "learnt_from": sorted(set().union(*[sources for _, sources in tested])),
        "sheets": {name: {key: facts[key] for key in FACTS} for name, facts in sorted(study.sheets.items())},
        "unsearched": [dict(run) for run in sorted(unsearched)],
        "scored": {key: max(run_facts[key] for run_facts in facts) for key in ("excluded", "copies")}
        if external
        else None,
        "synthetic": study.synthetic,
        "test": counts(test),
        "test_datasets": {name: counts(rows) for name, rows in test.groupby("dataset")},
        "parts": {
            part: {
                **{name: counts(table) for name, table in (("val", result.val), ("test", result.test))},
                "val_datasets": {name: counts(rows) for name, rows in result.val.groupby("dataset")},
            }
            for part, result in replicate.parts.items()
        },
        "source_alone_auroc": or_none(source_alone(test)),
    }


def _split(study: Study) -> dict:
    """The split as the first run recorded it; of several parts, each one's images under `by_part`."""
    run = study.first.first.run
    split, fractions = run.environment["split"], run.config.data.get("fractions")
    return split | {
        "hashes": sorted({result.run.environment["split"]["hash"] for result in study.results}),
        "fractions": None if fractions is None else list(fractions),
        "by_part": {part: result.run.environment["split"]["parts"] for part, result in study.first.parts.items()},
    }
