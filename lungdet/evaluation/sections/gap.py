"""Gap: how much better a model does on images that it was trained on than on validation's: how overfitting shows."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.sections.contract import Study, Unmeasured
from lungdet.evaluation.statistics import paired
from lungdet.evaluation.statistics.estimates import minus, turned
from lungdet.evaluation.statistics.intervals import Estimate
from lungdet.evaluation.statistics.measure import as_block, counts, estimated, lacking
from lungdet.page import sentences
from lungdet.page.document import Details, Table, items
from lungdet.page.sentences import THESE_RUNS
from lungdet.page.wording import difference, in_a_sentence, join, label, metric_name, with_interval

METRICS = ("accuracy", "auroc", "log_loss")
"""What gaps are measured in. Of the loss the smaller is the better: there overfitting is a gap below 0."""
QUOTED = METRICS[:2]
STUDIED = ["cnn", "cnn_lstm"]
SIDES = ("in training", "in validation")


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
    tables = {part: [getattr(replicate.first, part) for replicate in replicates] for part in ("train", "val")}
    first = {part: seeds[0] for part, seeds in tables.items()}
    labels = replicates[0].labels
    if len(labels) > 1:  # a mean over the same findings on both sides
        labels = tuple(name for name in labels if not any(lacking(table, name) for table in first.values()))
        if not labels:
            return Gap({"reason": "no finding is present and absent both in training and in validation"}, {}, ())
    scores = {part: estimated(seeds, labels, draws, METRICS) for part, seeds in tables.items()}
    train, val = scores["train"], scores["val"]
    scores["gap"] = {name: minus(turned(train[name], 1), val[name], SIDES) for name in METRICS}
    block = {f"{part}_images": counts(table) for part, table in first.items()} | as_block(**scores)
    return Gap(block, scores["gap"], (*first["train"]["image_id"], *first["val"]["image_id"]))


def compared(gaps: Mapping[str, Gap], pairs: Sequence[tuple[str, str]]) -> list[dict]:
    """The pairs' differences of gaps (second minus first), as `paired.compared` has them; Holm's p is over them all.

    A pair whose gaps are not between the same images, or not measured, is left out.

    Args:
        gaps: of each model.
        pairs: see `models.pairs`.
    """
    return paired.adjust(
        [
            paired.compare(first, gaps[first].estimates, second, gaps[second].estimates)
            for first, second in pairs
            if gaps[first].estimates and gaps[first].images == gaps[second].images
        ]
    )


def measure(study: Study) -> dict:
    """What `of_model` finds, for every model, and `compared` for every pair."""
    gaps = {model: of_model(replicates, study.draws) for model, replicates in study.models.items()}
    return {
        "models": {model: {"gap": gap.block} for model, gap in gaps.items()},
        "gap_comparisons": compared(gaps, study.pairs),
    }


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
            rows.append([label(model), metric_name(metric), images, *sides, cell(block, metric)])
            undefined = block["undefined"].get("gap", {}) | block["undefined"].get("gap_interval", {})
            if reason := undefined.get(metric):
                reasons.setdefault(reason, []).append(f"{label(model)}'s {in_a_sentence(metric)}")
    if not rows:
        return []
    quoted = [sentence(comparison, metric) for comparison in summary["gap_comparisons"] for metric in QUOTED]
    notes = [HOW, *[f"{join(models)}: {reason}." for reason, models in reasons.items()]]
    if any(block["settings"]["train_prevalence"] for block in summary["models"].values()):
        notes.append(SHARES_DIFFER)
    columns = ["Model", "Metric", "Images (training / validation)", "Training", "Validation", "Gap"]
    if not quoted:
        noun = "gap between training and validation"
        quoted = [
            f"{label(model)}'s {noun}: {cell(block, 'accuracy')} points of accuracy, {cell(block, 'auroc')} of AUROC."
            for model, block in blocks.items()
            if "reason" not in block
        ]
    return [
        *items(quoted, "sentence"),
        Details("The gap, metric by metric", [Table(columns, rows, 2, notes)]),
    ]


def unmeasured(summary: dict) -> list[Unmeasured]:
    """The gap, where no model has one."""
    blocks = [block["gap"] for block in summary["models"].values()]
    if not all("reason" in block for block in blocks):
        return []
    reasons = "; ".join(dict.fromkeys(block["reason"] for block in blocks))
    return [Unmeasured("The gap between training and validation", reasons)]


def cell(block: dict, metric: str) -> str:
    """A model's gap with its interval, as tables show it."""
    return (
        "not measured" if "reason" in block else difference(block["gap"][metric], block["gap_interval"][metric], metric)
    )


def sentence(comparison: dict, metric: str, called: Callable[[str], str] = label) -> str:
    """A comparison of gaps as a person quotes it."""
    noun = f"gap in {in_a_sentence(metric)} between training and validation"
    return sentences.difference(comparison, metric, metric, noun, called)


def claim(comparisons: Sequence[dict], scope: str, metrics: Sequence[str] = QUOTED) -> str | None:
    """What comparisons of gaps say of the study's claim that the CNN-LSTM overfits more; None without both models."""
    of_study = [pair for pair in comparisons if [pair["first"].role, pair["second"].role] == STUDIED]
    if not of_study:
        return None
    larger = {
        pair["metrics"][metric]["difference"] > 0
        for pair in of_study
        for metric in metrics
        if pair["metrics"][metric]["difference"] is not None and sentences.significant(pair, metric)
    }
    seeds = "" if all(pair["counts_seeds"] for pair in of_study) else THESE_RUNS
    if not larger:
        verdict = "no difference in the gap between training and validation is shown"
    elif len(larger) == 2:
        verdict = f"the comparisons disagree{seeds}"
    else:
        verdict = f"{'that is shown' if larger == {True} else 'the opposite is shown'}{seeds}"
    return f"The study says that the CNN-LSTM overfits more {scope}; here {verdict}."


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


def _unmeasurable(replicates: Sequence[Replicate]) -> str | None:
    """Why there is no gap, or None."""
    if any(len(replicate.parts) > 1 for replicate in replicates):
        return "each fold or held-out source has a network, training and validation images of its own"
    results = [replicate.first for replicate in replicates]
    if any(result.train is None for result in results):  # of several views of each image, say
        return "training images were not predicted as those of validation were"
    for part in ("train", "val"):
        if len({tuple(getattr(result, part)["image_id"]) for result in results}) > 1:
            return f"the seeds' predictions in {part}.parquet are of different images"
    return None
