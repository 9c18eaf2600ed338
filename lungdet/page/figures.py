"""Figures of the report: the curves, the metrics and the differences, with their intervals."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from lungdet.evaluation.statistics.curves import Curve
from lungdet.page.drawing import COLOURS, FAINT, INK, MARKERS, STYLE, axes, legend, of, shifts, svg
from lungdet.page.wording import NAMES, STUDY, finding_name


def curves(found: Mapping[str, Curve], kind: str, entries: Mapping[str, str], chance: float | None) -> str:
    """ROC (`roc`) or precision-recall curves (`pr`): one colour a model, its mean over seeds and 95 % band."""
    with plt.rc_context(STYLE):
        figure, plot = axes(4.3, len(found))
        if kind == "roc":
            plot.plot([0, 1], [0, 1], color=FAINT, linestyle=":", linewidth=1.5)
        elif chance is not None:
            plot.axhline(chance, color=FAINT, linestyle=":", linewidth=1.5)
        for number, (name, curve) in enumerate(found.items()):
            colour = of(COLOURS, number)
            plot.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
            plot.plot(curve.x, curve.y, color=colour, linewidth=2, label=entries[name])
        names = {"roc": ("1 - specificity", "recall"), "pr": ("recall", "precision")}[kind]
        plot.set(xlabel=names[0], ylabel=names[1], xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        legend(figure, plot)
        return svg(figure, kind)


def forest(comparison: dict, title: str, name: str) -> str:
    """Differences between two models with intervals, the metrics below each other; 0 is no difference."""
    shown = [metric for metric in NAMES if comparison["metrics"].get(metric, {}).get("difference") is not None]
    place = np.arange(len(shown))[::-1].astype(float)
    with plt.rc_context(STYLE):
        figure, plot = axes(1.1 + 0.34 * len(shown), 0)
        plot.axvline(0, color=INK, linewidth=1)
        for where, metric in zip(place, shown, strict=True):
            found = comparison["metrics"][metric]
            colour = of(COLOURS, 0 if metric in STUDY else 7)
            if found["interval"] is not None:
                plot.plot(found["interval"], [where, where], color=colour, linewidth=2)
            plot.plot(found["difference"], where, color=colour, marker=of(MARKERS, 0), markersize=7)
        plot.set_yticks(place, [NAMES[metric] for metric in shown])
        plot.grid(axis="y", visible=False)
        plot.set(ylim=(-0.6, len(shown) - 0.4), xlabel=title)
        return svg(figure, name)


def study_metrics(summary: dict, labels: Mapping[str, str]) -> str:
    """The study's four metrics at 0.5: a mark a model with its interval, the baselines as strokes."""
    names = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1"}
    place = np.arange(len(names))[::-1].astype(float)
    with plt.rc_context(STYLE):
        figure, plot = axes(3.7, len(summary["models"]) + 2)
        shift = shifts(len(summary["models"]), 0.24)
        for number, (name, block) in enumerate(summary["models"].items()):
            value = [_nan(block["test"][metric]) for metric in names]
            spread = _bars(block, list(names))
            style = {"color": of(COLOURS, number), "fmt": of(MARKERS, number), "markersize": 7}
            plot.errorbar(value, place + shift[number], xerr=spread, capsize=3, label=labels[name], **style)
        for name, line in (("always_abnormal", "-"), ("always_normal", ":")):
            value = np.array([_nan(summary["baselines"][name]["test"][metric]) for metric in names])
            plot.vlines(value, place - 0.38, place + 0.38, color=INK, linestyle=line, label=labels[name])
        plot.set(xlim=(-0.03, 1.03), ylim=(-0.6, len(names) - 0.4))
        plot.set_yticks(place, list(names.values()))
        plot.grid(axis="y", visible=False)
        legend(figure, plot)
        return svg(figure, "metrics")


def findings(summary: dict, labels: Mapping[str, str], names: Sequence[str]) -> str:
    """AUROC of these findings: a mark a model with its interval; chance as a line."""
    place = np.arange(len(names))[::-1].astype(float)
    with plt.rc_context(STYLE):
        figure, plot = axes(1.2 + 0.32 * len(names), len(summary["models"]))
        plot.axvline(0.5, color=FAINT, linestyle=":", linewidth=1.5)
        shift = shifts(len(summary["models"]), 0.2)
        for number, (model, block) in enumerate(summary["models"].items()):
            found = [block["findings"][name] for name in names]
            style = {"color": of(COLOURS, number), "fmt": of(MARKERS, number), "markersize": 6}
            value = [_nan(one["test"]["auroc"]) for one in found]
            spread = np.concatenate([_bars(one, ["auroc"]) for one in found], axis=1)
            plot.errorbar(value, place + shift[number], xerr=spread, capsize=3, label=labels[model], **style)
        plot.set(xlim=(-0.03, 1.03), ylim=(-0.6, len(names) - 0.4), xlabel="AUROC")
        plot.set_yticks(place, [finding_name(name).replace(" (proxy for cancer)", "") for name in names])
        plot.grid(axis="y", visible=False)
        legend(figure, plot)
        return svg(figure, "findings")


def _nan(value: float | None) -> float:
    return np.nan if value is None else value


def _bars(block: dict, names: Sequence[str]) -> np.ndarray:
    """How far intervals reach below and above the values, (2, metrics); 0 where there is none."""
    reach = np.zeros((2, len(names)))
    for place, name in enumerate(names):
        ends, value = block["test_interval"][name], block["test"][name]
        if ends is not None:
            reach[:, place] = max(value - ends[0], 0), max(ends[1] - value, 0)
    return reach
