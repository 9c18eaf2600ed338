"""Sensitivity by finding: how many of the images that carry a finding a normal-or-abnormal model calls abnormal."""

from collections.abc import Sequence

from lungdet.evaluation.gathering.peers import Tested
from lungdet.evaluation.sections.contract import Section, Study, Unmeasured, thresholds_of
from lungdet.evaluation.statistics.measure import Cuts, as_block, estimated
from lungdet.findings import FINDINGS
from lungdet.page.document import Details, Table
from lungdet.page.marked import legible, marked
from lungdet.page.wording import finding_name, join, label, with_interval


def of_model(replicates: Sequence[Tested], cuts: Sequence[Cuts], draws: int) -> dict:
    """By finding: the images and patients that carry it, and the recall on them over seeds, at both thresholds.

    A finding that is known on no image is not among them.
    """
    blocks = {}
    for finding in FINDINGS:
        if replicates[0].test[f"target_{finding}"].isna().all():
            continue
        # Every one of these is abnormal, whatever else is said of it.
        carry = [
            replicate.test[replicate.test[f"target_{finding}"] == 1].assign(target_abnormal=1.0)
            for replicate in replicates
        ]
        at_half, at_chosen = (estimated(carry, ("abnormal",), draws, ["recall"], at) for at in (None, cuts))
        size = {"images": len(carry[0]), "patients": int(carry[0]["patient_id"].nunique())}
        blocks[finding] = size | as_block(test=at_half, at_validation_threshold=at_chosen)
    return blocks


def tell(summary: dict) -> list:
    """Every model's sensitivity by finding, the tables folded; nothing with findings or where none is known."""
    models = summary["models"]
    if summary["task"] != "abnormal" or unmeasured(summary):
        return []
    threshold, further = thresholds_of(summary)
    by_model = {label(model): block["sensitivity_by_finding"] for model, block in models.items()}
    blocks = {
        name: {f"{k.replace('_', ' ')} ({b['images']:,})": b for k, b in of_model.items() if b["images"]}
        for name, of_model in by_model.items()
    }
    caption = "Share of the images that carry a finding (how many) which are called abnormal, with 95 % intervals."
    title = "Sensitivity by finding"
    drawing = {"metric": "recall", "key": threshold, "axis": "sensitivity", "line": None}
    picture = [marked("sensitivity", title, blocks, caption, **drawing)] if legible(blocks) else []
    return [
        *picture,
        Details("The numbers, and how to read them", [_table(summary, threshold), _table(summary, further)]),
    ]


def _table(summary: dict, key: str) -> Table:
    models = summary["models"]
    blocks = {model: block["sensitivity_by_finding"] for model, block in models.items()}
    first = next(iter(blocks.values()))
    carried = [finding for finding, block in first.items() if block["images"]]
    rows = [
        [
            finding_name(finding),
            f"{first[finding]['images']:,}",
            f"{first[finding]['patients']:,}",
            *[with_interval(block[finding], key, "recall") for block in blocks.values()],
        ]
        for finding in carried
    ]
    normal = summary["data"]["test"]["labelled"] - summary["data"]["test"]["abnormal"]
    specificity = [with_interval(block, key, "specificity") for block in models.values()]
    rows.append(["normal images called normal (specificity)", f"{normal:,}", "", *specificity])
    notes = [
        f"At {thresholds_of(summary)[key]}. Per cent of the images that carry the finding which are called "
        "abnormal; an image may carry several, so its "
        "other findings may be what was seen. Read it beside the specificity in the last row: who calls everything "
        "abnormal has a sensitivity of 100."
    ]
    if {"nodule", "mass"} & set(carried):
        notes.append(
            "Nodule and mass are a proxy for cancer, not cancer: no image here has a diagnosis that a biopsy or a "
            "follow-up confirmed."
        )
    absent = [finding_name(finding) for finding, block in first.items() if not block["images"]]
    if absent:
        notes.append(f"On no test image: {join(absent)}.")
    unknown = [finding_name(finding) for finding in FINDINGS if finding not in first]
    if unknown:
        notes.append(f"Known of no test image: {join(unknown)}.")
    return Table(["Finding", "Images", "Patients", *map(label, models)], rows, 1, notes)


def unmeasured(summary: dict) -> list[Unmeasured]:
    """The sensitivity by finding, where no image carries one that is known by name."""
    if summary["task"] != "abnormal":
        return []
    first = next(iter(summary["models"].values()))["sensitivity_by_finding"]
    if any(finding["images"] for finding in first.values()):
        return []
    return [Unmeasured("Sensitivity by finding", "no test image carries a finding that is known by name")]


def measure(study: Study) -> dict:
    """What `of_model` finds, for every model that calls images normal or abnormal."""
    if study.task != "abnormal":
        return {}
    return study.of_each(
        "sensitivity_by_finding", lambda model: of_model(study.models[model], study.cuts[model], study.draws)
    )


SECTION = Section(
    "Sensitivity by finding",
    measure=measure,
    meanings={
        "sensitivity_by_finding": "recall on the images that carry a finding, of a model that calls normal or abnormal"
    },
    tell=tell,
    unmeasured=unmeasured,
    claim=(38, 39),
)
