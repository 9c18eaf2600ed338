"""A table of metrics: models at a threshold beside constant answers, and what is undefined and why."""

from collections.abc import Mapping, Sequence

from lungdet.evaluation.statistics.measure import THRESHOLDED
from lungdet.evaluation.statistics.metrics import STUDY
from lungdet.page.document import Table
from lungdet.page.sentences import undefined
from lungdet.page.wording import BASELINE_NAMES, figure, join, label, metric_name, value, with_interval


def metrics_table(summary: dict, key: str, names: Sequence[str] = STUDY) -> Table:
    """A row a model at the threshold of `key`, a row a constant answer, and of the study's metrics the published."""
    constant = ("always_abnormal", "always_normal") if THRESHOLDED & {*names} else ("validation_share",)
    answers = [(label(model), block, key, with_interval) for model, block in summary["models"].items()]
    answers += [(BASELINE_NAMES[name], summary["baselines"][name], "test", value) for name in constant]
    rows = [[name, *[written(block, at, metric) for metric in names]] for name, block, at, written in answers]
    for model, values in summary["published"].items() if names == STUDY else ():
        cells = [figure(metric, values[metric]) if metric in values else "" for metric in names]
        rows.append([f"{label(model)}, published, other data", *cells])
    reasons = {
        name: {metric: why for metric, why in block["undefined"].get(at, {}).items() if metric in names}
        for name, block, at, _ in answers
    }
    return Table(["Model", *map(metric_name, names)], rows, 1, undefined(_lacking(reasons)))


def _lacking(reasons: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """By reason who lacks what, all together that lack the same: `Accuracy and F1 of CNN and CNN-LSTM`."""
    lacking: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for name, by_metric in reasons.items():
        for reason in dict.fromkeys(by_metric.values()):
            metrics = tuple(metric_name(metric) for metric, why in by_metric.items() if why == reason)
            lacking.setdefault(reason, {}).setdefault(metrics, []).append(name)
    return {
        reason: [f"{join([*metrics])} of {join(names)}" for metrics, names in alike.items()]
        for reason, alike in lacking.items()
    }
