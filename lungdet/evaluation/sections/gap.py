"""Gap: how much better a model does on images that it was trained on than on validation's: how overfitting shows."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.sections.contract import Study
from lungdet.evaluation.statistics import paired
from lungdet.evaluation.statistics.intervals import SEEDS_NEEDED, Estimate, difference, holm
from lungdet.evaluation.statistics.measure import counts, enter, estimated, lacking
from lungdet.evaluation.statistics.metrics import Undefined
from lungdet.page.document import Items, Table, Text
from lungdet.page.wording import FLAGS, NAMES, in_a_sentence, join, label, number, points, with_interval

METRICS = ("accuracy", "auroc", "log_loss")
"""What gaps are measured in. Of the loss the smaller is the better: there overfitting is a gap below 0."""
QUOTED = METRICS[:2]
STUDIED = ["cnn", "cnn_lstm"]


class Gap(NamedTuple):
    """A model's gap: the JSON-ready block, the estimates comparisons are made of, and the images it is between."""

    block: dict
    estimates: dict[str, Estimate]
    images: tuple[str, ...]


def of_model(replicates: Sequence[Replicate], draws: int) -> Gap:
    """The gap of a model at threshold 0.5, mean over seeds: a sample of its training images minus validation.

    The interval counts the choice of patients, of training and of validation independently, and from three seeds on
    the seeds.

    Returns:
        A block of `train`, `val` and `gap` by metric (with `_sd` and `_interval` of each, and `undefined`, the reasons)
        and of `train_images` and `val_images`, counts; or of `reason` alone, why there is none.
    """
    if reason := _unmeasurable(replicates):
        return Gap({"reason": reason}, {}, ())
    tables = {part: [getattr(one.first, part) for one in replicates] for part in ("train", "val")}
    first = {part: some[0] for part, some in tables.items()}
    labels = replicates[0].labels
    if len(labels) > 1:  # a mean over the same findings on both sides
        labels = tuple(one for one in labels if not any(lacking(table, one) for table in first.values()))
        if not labels:
            return Gap({"reason": "no finding is present and absent both in training and in validation"}, {}, ())
    half = [0.0] * len(replicates)
    found = {part: estimated(some, labels, half, draws, METRICS) for part, some in tables.items()}
    found["gap"] = {name: _minus(found["train"][name], found["val"][name]) for name in METRICS}
    block: dict = {f"{part}_images": counts(table) for part, table in first.items()} | {"undefined": {}}
    for part, estimates in found.items():
        enter(block, part, estimates)
    for name, estimate in found["gap"].items():
        if block["gap_interval"][name] and not np.ptp(estimate.draws.mean(axis=0)):
            block["gap_interval"][name] = None
            block["undefined"].setdefault("gap_interval", {})[name] = "it is the same for all redrawn patients"
    return Gap(block, found["gap"], (*first["train"]["image_id"], *first["val"]["image_id"]))


def compared(gaps: Mapping[str, Gap], which: Sequence[tuple[str, str]]) -> list[dict]:
    """The pairs' differences of gaps (second minus first), as `paired.compared` has them; Holm's p is over them all.

    A pair whose gaps are not between the same images, or not measured, is left out.

    Args:
        gaps: of each model.
        which: see `grouping.pairs`.
    """
    found = [
        differing(first, gaps[first].estimates, second, gaps[second].estimates)
        for first, second in which
        if gaps[first].estimates and gaps[first].images == gaps[second].images
    ]
    return adjusted(found)


def measure(study: Study) -> dict:
    """What `of_model` finds, for every model, and `compared` for every pair."""
    gaps = {model: of_model(replicates, study.draws) for model, replicates in study.models.items()}
    return {
        "models": {model: {"gap": gap.block} for model, gap in gaps.items()},
        "gap_comparisons": compared(gaps, study.pairs),
    }


def differing(first: str, one: Mapping[str, Estimate], second: str, two: Mapping[str, Estimate]) -> dict:
    """A comparison of two models' estimates by name, second minus first, like `paired.compared`'s without Holm's p."""
    metrics = {}
    for name in one:
        value, low, high, p = difference(one[name], two[name])
        none = math.isnan(low)
        metrics[name] = {
            "difference": None if math.isnan(value) else float(value),
            "interval": None if none else [float(low), float(high)],
            "p": None if math.isnan(p) else float(p),
            **({"undefined": getattr(low, "reason", "it is undefined")} if none else {}),
        }
    seeds = min(len(estimate.values) for estimate in (*one.values(), *two.values()))
    return {"first": first, "second": second, "counts_seeds": seeds >= SEEDS_NEEDED, "metrics": metrics}


def adjusted(comparisons: list[dict]) -> list[dict]:
    """The same with `p_holm`, over everything in them."""
    family = [found for one in comparisons for found in one["metrics"].values()]
    for found, p in zip(family, holm([math.nan if one["p"] is None else one["p"] for one in family]), strict=True):
        found["p_holm"] = None if math.isnan(p) else float(p)
    return comparisons


def less(one: Estimate, other: Estimate, where: tuple[str, str]) -> list[float]:
    """One estimate's values minus the other's, seed by seed; where either is undefined, the reason and which it was."""
    found = []
    for pair in zip(one.values, other.values, strict=True):
        reasons = [f"{side} {getattr(value, 'reason', 'NaN')}" for side, value in zip(where, pair, strict=True)]
        missing = [reason for reason, value in zip(reasons, pair, strict=True) if math.isnan(value)]
        found.append(Undefined(missing[0]) if missing else pair[0] - pair[1])
    return found


def tell(summary: dict) -> list:
    """The models' gaps, and whether they differ.

    Args:
        summary: with each model's `gap`, and `gap_comparisons`.
    """
    blocks = {model: block["gap"] for model, block in summary["models"].items()}
    rows, reasons = [], {}
    for model, block in blocks.items():
        if "reason" in block:
            reasons.setdefault(block["reason"], []).append(label(model))
            continue
        images = f"{block['train_images']['images']:,} / {block['val_images']['images']:,}"
        for metric in METRICS:
            sides = [with_interval(block, part, metric) for part in ("train", "val")]
            rows.append([label(model), NAMES[metric], images, *sides, cell(block, metric)])
            undefined = block["undefined"].get("gap", {}) | block["undefined"].get("gap_interval", {})
            if why := undefined.get(metric):
                reasons.setdefault(why, []).append(f"{label(model)}'s {in_a_sentence(metric)}")
    if not rows:
        return [Text(f"The gap between training and validation is not measured: {'; '.join(reasons)}.")]
    quoted = [sentence(one, metric) for one in summary["gap_comparisons"] for metric in QUOTED]
    notes = [HOW, *[f"{join(which)}: {why}." for why, which in reasons.items()]]
    if any(block["settings"]["train_prevalence"] for block in summary["models"].values()):
        notes.append(SHARES_DIFFER)
    columns = ["Model", "Metric", "Images (training / validation)", "Training", "Validation", "Gap"]
    return [*([Items(quoted)] if quoted else []), Table(columns, rows, 2, notes)]


def cell(block: dict, metric: str) -> str:
    """A model's gap with its interval, as tables show it."""
    if "reason" in block:
        return "not measured"
    if block["gap"][metric] is None:
        return "undefined"
    ends = block["gap_interval"][metric]
    said = "no interval" if ends is None else " to ".join(signed(metric, end) for end in ends)
    return f"{signed(metric, block['gap'][metric])} [{said}]"


def signed(metric: str, value: float) -> str:
    """A difference as tables show it; what rounds to 0 has no sign."""
    said = points(metric, value)[0]
    return said if float(said) else said.removeprefix("-")


def sentence(one: dict, metric: str, called: Callable[[str], str] = label) -> str:
    """A comparison of gaps as a person quotes it."""
    what = f"gap in {in_a_sentence(metric)} between training and validation"
    return quotable(one, one["metrics"][metric], metric, what, called)


def quotable(one: dict, found: dict, metric: str, what: str, called: Callable[[str], str] = label) -> str:
    """A difference in something that is measured in a metric's unit: `Y's WHAT is 1.2 points above X's, ..`."""
    first, second = called(one["first"]), called(one["second"])
    if found["difference"] is None:
        return f"{second} and {first}: their {what} cannot be compared ({found['undefined']})."
    size, unit = points(metric, abs(found["difference"]))
    said = f"{second}'s {what} is {size}{unit} {'above' if found['difference'] > 0 else 'below'} {first}'s"
    if not float(size):
        said = f"{second} and {first} have the same {what}"
    if found["interval"] is None:
        return f"{said}; no interval ({found['undefined']}): no difference is shown."
    low, high = (signed(metric, end) for end in found["interval"])
    return f"{said}, 95 % interval {low} to {high}: {paired.verdict(found, one['counts_seeds'])}."


def claim(comparisons: Sequence[dict], where: str, metrics: Sequence[str] = QUOTED) -> str | None:
    """What comparisons of gaps say of the study's claim that the CNN-LSTM overfits more; None without both models."""
    of_study = [one for one in comparisons if [_studied(one[key]) for key in ("first", "second")] == STUDIED]
    if not of_study:
        return None
    found = [one["metrics"][metric] for one in of_study for metric in metrics]
    larger = {one["difference"] > 0 for one in found if one["difference"] is not None and _shown(one)}
    seeds = "" if all(one["counts_seeds"] for one in of_study) else ", for these very runs"
    if not larger:
        said = "no difference in the gap between training and validation is shown"
    elif len(larger) == 2:
        said = f"the comparisons disagree{seeds}"
    else:
        said = f"{'that is shown' if larger == {True} else 'the opposite is shown'}{seeds}"
    return f"The study says that the CNN-LSTM overfits more {where}; here {said}."


HOW = (
    "Gap: training minus validation at threshold 0.5, of accuracy in points; above 0 (log loss: below) the model does "
    "better on what it has seen. Training is a sample of whole patients, without augmentation. Validation chose the "
    "epoch, so the gap is rather too small than too large. 95 % intervals count the choice of patients on both sides "
    "and, from three seeds on, the seeds."
)
SHARES_DIFFER = (
    "Accuracy and log loss change with the share of abnormal images: where training and validation differ in it, their "
    "gap is not overfitting alone. AUROC's is."
)


def _studied(model: str) -> str | None:
    """A model's module; of a control None."""
    base, *told = model.split(" ")
    return None if {f"{flag}=True" for flag in FLAGS} & {*told} else base


def _shown(found: dict) -> bool:
    return paired.shown({"metrics": {"this": found}}, "this")


def _unmeasurable(replicates: Sequence[Replicate]) -> str | None:
    """Why there is no gap, or None."""
    if any(len(one.parts) > 1 for one in replicates):
        return "each fold or held-out source has a network, training and validation images of its own"
    results = [one.first for one in replicates]
    without = [result.run.folder.name for result in results if result.train is None]
    if without:
        some = f"{number(len(without), 'run')} ({without[0]}{', ..' if len(without) > 1 else ''})"
        return f"{some} kept no predictions of training images; train anew to have them"
    for part in ("train", "val"):
        if len({tuple(getattr(result, part)["image_id"]) for result in results}) > 1:
            return f"the seeds' predictions in {part}.parquet are of different images"
    return None


def _minus(train: Estimate, val: Estimate) -> Estimate:
    """The gap seed by seed and draw by draw, on an unbounded scale."""
    values = less(train, val, ("in training", "in validation"))
    patients = min(train.patients, val.patients)
    # Draws depend on the number of patients alone: turned by one, those of training and validation are independent.
    drawn = np.roll(train.draws, 1, axis=1) - val.draws if patients > 1 else val.draws[:, :0]
    return Estimate("gap", values, drawn, patients, min(train.supporting, val.supporting))
