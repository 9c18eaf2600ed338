"""Figures of the report: SVG drawn by matplotlib whose ink follows the reader's light or dark page."""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lungdet.evaluation.metrics import roc_curve
from lungdet.evaluation.parts import Replicate
from lungdet.evaluation.wording import finding_name

# Mid tones that stand out from white and from near-black, told apart by the colour-blind (after Okabe and Ito).
COLOURS = ("#2a86d1", "#dd7a1f", "#1fa187", "#c2559b", "#8c7ae6", "#b59b00", "#d1495b", "#6c8ea0")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK, FAINT = "#010203", "#040506"  # replaced in the SVG by what follows the page's colours
STYLE = {
    "svg.fonttype": "none",  # text stays text: readable, selectable, found by search
    "svg.hashsalt": "lungdet",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
WIDTH = 4.7  # inches; wide enough to read when a phone shrinks it to its own width


def roc(models: Mapping[str, Sequence[Replicate]], summary: dict, labels: Mapping[str, str]) -> str:
    """ROC curves: one line a seed, one colour a model."""
    with plt.rc_context(STYLE):
        figure, axes = _axes(4.3, len(models))
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle=":", linewidth=1.5)
        for number, (name, runs) in enumerate(models.items()):
            auroc = summary["models"][name]["test"]["auroc"]
            label = f"{labels[name]}, AUROC {'undefined' if auroc is None else f'{auroc:.3f}'}"
            for one in runs:
                x, y = roc_curve(one.test.target_abnormal, one.test.probability_abnormal)
                axes.plot(x, y, color=_of(COLOURS, number), linewidth=2 if len(runs) == 1 else 1.2, label=label)
                label = None
        axes.set(xlabel="1 - specificity", ylabel="recall", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        _legend(figure, axes)
        return _svg(figure, "roc")


def study_metrics(summary: dict, labels: Mapping[str, str]) -> str:
    """The study's four metrics at 0.5: a mark a model with its spread over seeds, the baselines as strokes."""
    names = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1"}
    place = np.arange(len(names))[::-1].astype(float)
    with plt.rc_context(STYLE):
        figure, axes = _axes(3.7, len(summary["models"]) + 2)
        shift = np.linspace(0.24, -0.24, len(summary["models"])) if len(summary["models"]) > 1 else [0.0]
        for number, (name, block) in enumerate(summary["models"].items()):
            value = [_nan(block["test"][metric]) for metric in names]
            spread = [block["test_sd"][metric] or 0 for metric in names]
            style = {"color": _of(COLOURS, number), "fmt": _of(MARKERS, number), "markersize": 7}
            axes.errorbar(value, place + shift[number], xerr=spread, capsize=3, label=labels[name], **style)
        for name, line in (("always_abnormal", "-"), ("always_normal", ":")):
            value = np.array([_nan(summary["baselines"][name]["test"][metric]) for metric in names])
            axes.vlines(value, place - 0.38, place + 0.38, color=INK, linestyle=line, label=labels[name])
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.6, len(names) - 0.4))
        axes.set_yticks(place, list(names.values()))
        axes.grid(axis="y", visible=False)
        _legend(figure, axes)
        return _svg(figure, "metrics")


def findings(summary: dict, labels: Mapping[str, str], names: Sequence[str]) -> str:
    """AUROC of these findings: a mark a model with its spread over seeds; chance as a line."""
    place = np.arange(len(names))[::-1].astype(float)
    with plt.rc_context(STYLE):
        figure, axes = _axes(1.2 + 0.32 * len(names), len(summary["models"]))
        axes.axvline(0.5, color=FAINT, linestyle=":", linewidth=1.5)
        shift = np.linspace(0.2, -0.2, len(summary["models"])) if len(summary["models"]) > 1 else [0.0]
        for number, (model, block) in enumerate(summary["models"].items()):
            found = [block["findings"][name] for name in names]
            style = {"color": _of(COLOURS, number), "fmt": _of(MARKERS, number), "markersize": 6}
            value = [_nan(one["test"]["auroc"]) for one in found]
            spread = [one["test_sd"]["auroc"] or 0 for one in found]
            axes.errorbar(value, place + shift[number], xerr=spread, capsize=3, label=labels[model], **style)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.6, len(names) - 0.4), xlabel="AUROC")
        axes.set_yticks(place, [finding_name(name).replace(" (proxy for cancer)", "") for name in names])
        axes.grid(axis="y", visible=False)
        _legend(figure, axes)
        return _svg(figure, "findings")


def _axes(height: float, entries: int) -> tuple[Figure, Axes]:
    return plt.subplots(figsize=(WIDTH, height + 0.24 * entries), layout="constrained")


def _legend(figure: Figure, axes: Axes) -> None:
    """Below the plot and one entry a line, so that long names of models fit a phone."""
    handles, names = axes.get_legend_handles_labels()
    # matplotlib lists lines before error bars; the models come first.
    order = sorted(range(len(names)), key=lambda i: names[i].startswith("always "))
    handles, names = [handles[i] for i in order], [names[i] for i in order]
    figure.legend(handles, names, loc="outside lower left", ncols=1, handlelength=1.6)


def _svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element whose ids do not clash with another figure's on the same page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    return svg.replace(INK, "currentColor").replace(FAINT, "#8b949e80")


def _of(choices: Sequence[str], number: int) -> str:
    return choices[number % len(choices)]


def _nan(value: float | None) -> float:
    return np.nan if value is None else value
