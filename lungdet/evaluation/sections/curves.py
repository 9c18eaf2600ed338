"""Curves: ROC and precision-recall curves of the models on the test part."""

from lungdet.evaluation.sections.contract import Study
from lungdet.evaluation.statistics.curves import curves
from lungdet.page import figures
from lungdet.page.document import Figure
from lungdet.page.wording import figure, label, metric_name, value


def picture(summary: dict, study: Study, kind: str) -> Figure:
    """ROC (`roc`) or precision-recall curves (`pr`) of models that call normal or abnormal."""
    metric, short, title = {
        "roc": ("auroc", "AUROC", "ROC curves"),
        "pr": ("average_precision", "AP", "Precision-recall curves"),
    }[kind]
    lines = {model: curves(study.tested(model)[0], "abnormal", kind) for model in study.models}
    counts, models = summary["data"]["test"], summary["models"]
    share = counts["abnormal"] / counts["labelled"] if counts["labelled"] else None
    entries = {
        name: f"{label(name)}, {short} {figure(metric, block['test'][metric])}" for name, block in models.items()
    }
    words = "; ".join(f"{label(n)}: {metric_name(metric)} {value(b, 'test', metric)}" for n, b in models.items())
    pooled = "; all parts' images pooled" if summary["parts"] else ""
    means = "Mean over seeds, with" if any(len(block["seeds"]) > 1 for block in models.values()) else "With"
    caption = f"{means} the band of 95 % of redrawn test parts{pooled}. Dotted: chance."
    return Figure(kind, figures.curves(lines, kind, entries, share), title, f"{words}.", caption)
