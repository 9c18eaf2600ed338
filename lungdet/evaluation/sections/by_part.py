"""By part: a model tested on several folds or held-out sources; each part's results, their mean and spread."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from lungdet.evaluation.gathering.parts import ALONE, FOLDS, Replicate, expected, part_of
from lungdet.evaluation.gathering.peers import Tested
from lungdet.evaluation.sections.contract import Section, Study
from lungdet.evaluation.statistics.measure import Cuts, counts, over, scored
from lungdet.evaluation.statistics.metrics import STUDY
from lungdet.page.document import Details, Table, Text
from lungdet.page.wording import join, label, metric_name, number, percent, value


def described(models: Mapping[str, Sequence[Replicate]]) -> dict | None:
    """Which parts there are and which are missing; None for runs with a test part of their own."""
    replicate = next(iter(models.values()))[0]
    part = part_of(replicate.first.run)
    if part.kind == ALONE:
        return None
    whole = expected([result for replicates in models.values() for run in replicates for result in run.results])
    return {
        "kind": part.kind,
        "family": part.family,
        "of": whole,
        "present": list(replicate.parts),
        "missing": [name for name in whole if name not in replicate.parts],
        "test": {name: counts(result.test) for name, result in replicate.parts.items()},
    }


def of_model(replicates: Sequence[Tested], images: Mapping[str, pd.Series], cuts: Sequence[Cuts], draws: int) -> dict:
    """`parts`: a block like the model's own for each; `over_parts`: mean and sample deviation over them.

    `images` are those of each part. A model's number in a part is the mean over its seeds, so the deviation over parts
    holds no spread over seeds.
    """
    labels = replicates[0].labels
    parts = {}
    for name, of_part in images.items():
        tables = [replicate.test[replicate.test["image_id"].isin(of_part)] for replicate in replicates]
        parts[name] = scored(tables, labels, cuts, draws).block
    pooled = {}
    for key in ("test", "at_validation_threshold"):
        values = [{name: math.nan if v is None else v for name, v in block[key].items()} for block in parts.values()]
        pooled[key], pooled[f"{key}_sd"], _ = over(values)
    return {"parts": parts, "over_parts": pooled}


def title(summary: dict) -> str:
    """The section's heading."""
    return "Fold by fold" if summary["parts"]["kind"] == FOLDS else "Held-out source by held-out source"


def tell(summary: dict) -> list:
    """Every model on every part at threshold 0.5, with mean and spread over parts, and all parts' images pooled."""
    parts = summary["parts"]
    if parts is None:
        return []
    rows = []
    for model, block in summary["models"].items():
        for name, result in block["parts"].items():
            rows.append([label(model), name, *_support(result), *[value(result, "test", metric) for metric in STUDY]])
        if len(block["parts"]) > 1:
            mean = [value(block["over_parts"], "test", metric) for metric in STUDY]
            rows.append([label(model), f"mean ± SD of {len(block['parts'])}", "", "", *mean])
            pooled = [value(block, "test", metric) for metric in STUDY]
            rows.append([label(model), "pooled", *_support(block), *pooled])
    kind = "Fold" if parts["kind"] == FOLDS else "Held-out source"
    notes = [
        "At threshold 0.5. SD: standard deviation over folds, which share most of their training images, so it "
        "is no standard error of the mean."
        if parts["kind"] == FOLDS
        else "At threshold 0.5. Each source is tested by networks that were trained on the other sources alone. SD: "
        "standard deviation over sources."
    ]
    if len(parts["present"]) > 1:
        notes.append(
            "Pooled, the probabilities of several networks stand in one ranking: where they are not calibrated alike, "
            "the pooled AUROC can lie below the mean over parts."
        )
    if summary["task"] != "abnormal":
        notes.append("In each part the mean is over the findings with both classes there.")
    table = Table(["Model", kind, "Images", "Abnormal", *[metric_name(metric) for metric in STUDY]], rows, 2, notes)
    return [*map(Text, caveats(summary)), Details("The numbers, part by part", [table])]


def _support(block: dict) -> list[str]:
    return [f"{block['images']:,}", percent(block["abnormal"] / block["labelled"]) if block["labelled"] else ""]


def caveats(summary: dict) -> list[str]:
    """Which parts are missing."""
    parts = summary["parts"]
    if not parts or not parts["missing"]:
        return []
    noun = "fold" if parts["kind"] == FOLDS else "source"
    held_out = "" if parts["kind"] == FOLDS else "held-out "
    return [
        f"{number(len(parts['missing']), f'{held_out}{noun}')} of {len(parts['of'])} missing: "
        f"{join(parts['missing'])}. Every number is over the rest and not over all images."
    ]


def measure(study: Study) -> dict:
    """Which parts there are, and what `of_model` finds on each of them; other data has none."""
    parts = None if study.external else described(study.models)
    if parts is None:
        return {"parts": None}
    images = {name: result.test["image_id"] for name, result in study.first.parts.items()}
    return {
        "parts": parts,
        "models": {
            model: of_model(replicates, images, study.cuts[model], study.draws)
            for model, replicates in study.models.items()
        },
    }


SECTION = Section(
    title,
    measure=measure,
    meanings={
        "parts": "folds or held-out sources; `test` pools their images, each tested once; `over_parts`: mean over parts"
    },
    tell=tell,
    caveats=caveats,
    claim=(37,),
)


def tested(summary: dict) -> str:
    """How the test images were tested, to follow their number; empty for a test part of its own."""
    parts = summary["parts"]
    if parts is None:
        return ""
    if parts["kind"] == FOLDS:
        whole = number(len(parts["of"]), "fold")
        extent = f"only {join(parts['present'])} of {whole}" if parts["missing"] else f"each tested once in {whole}"
        return f", {extent}"
    return f", {join(parts['present'])}{' each' if len(parts['present']) > 1 else ''} held out in turn"
