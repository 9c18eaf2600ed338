"""Imbalance: what a rare disease costs, where runs differ in the share of abnormal images that they were trained on."""

from lungdet.evaluation.sections import gap, shares
from lungdet.evaluation.sections.contract import Section, Unmeasured
from lungdet.evaluation.sections.shares import share
from lungdet.evaluation.sections.sweep import Value, measured_by, sweep
from lungdet.page.wording import metric_name, percent, with_interval

METRICS = ("recall", "specificity", "balanced_accuracy", "auroc")


def tell(summary: dict) -> list:
    """The models by the share of abnormal images in training."""
    swept = sweep(summary, "train_prevalence")
    if not swept.varies:
        return []
    among = swept._replace(values=[value for value in swept.values if value is not None])
    measures = ("recall", "auroc") if summary["task"] == "abnormal" else ("auroc",)
    rarest = min(among.values, key=lambda value: min(value, 1 - value))
    scope = f"on unbalanced data ({share(rarest)} of the training images abnormal)"
    verdict = None if rarest == BALANCED else gap.claim(swept.at(rarest, summary["gap_comparisons"]), scope, ["auroc"])
    items = shares.quoted_at_each(summary, swept, measures, _where)
    items += shares.trends(summary, among, measures, "abnormal in training")
    columns = ["Abnormal in training", *map(metric_name, METRICS), "Gap in AUROC"]
    picture = shares.curves(summary, among, "share of abnormal training images", "imbalance")
    return shares.layout(verdict, items, picture, shares.numbers(summary, swept, _called, columns, _cells, [HOW, GAP]))


def advice(summary: dict) -> list[list[str]]:
    """Which model for which share of abnormal training images."""
    swept, based = sweep(summary, "train_prevalence"), "[Imbalance](#imbalance)"
    if not swept.varies:
        return []
    return [
        [f"{share(value) if value else 'As many as in the sources'} of the training images abnormal", advised, based]
        for value, advised in shares.advised_at_each(summary, swept, ("auroc",))
    ]


def unmeasured(summary: dict) -> list[Unmeasured]:
    """What an unbalanced training part costs."""
    varies = sweep(summary, "train_prevalence").varies
    return [] if varies else [measured_by("imbalance", "What an unbalanced training part costs")]


SECTION = Section("Imbalance", tell=tell, advice=advice, unmeasured=unmeasured)


BALANCED = 0.5
HOW = (
    "On the test part, which keeps its own share of abnormal images, at threshold 0.5. Whatever share was set, the "
    "number of training images is the same. A model that saw few abnormal images gives low probabilities: recall falls "
    "and specificity rises, which a threshold chosen on validation brings back; what AUROC loses is lost."
)
GAP = (
    "Gap: training minus validation, of AUROC, which the share of abnormal images does not change; accuracy and log "
    "loss change with it without any overfitting."
)


def _where(value: Value) -> str:
    return "With the sources' own share" if value is None else f"With {share(value)} of the training images abnormal"


def _called(value: Value, block: dict | None) -> str:
    """A share of abnormal training images, as it was set or as the data has it."""
    if value is not None:
        return share(value)
    if block is None:
        return "as the sources have it"
    train = block["settings"]["train"]
    return f"as the sources have it, {percent(train['abnormal'] / train['labelled'])}"


def _cells(block: dict) -> list[str]:
    return [*[with_interval(block, "test", metric) for metric in METRICS], gap.cell(block["gap"], "auroc")]
