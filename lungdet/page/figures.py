"""Figures of the report: numbers with their intervals as SVG; what they show in words is told beside them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from lungdet.page.drawing import COLOURS, FAINT, INK, MARKERS, STYLE, WIDTH, axes, legend, of, shifts, svg
from lungdet.page.wording import metric_name


def curves(
    curves: Mapping[str, tuple[np.ndarray, ...]], kind: str, entries: Mapping[str, str], chance: float | None
) -> str:
    """ROC (`roc`) or precision-recall curves (`pr`): one colour a model, its mean over seeds and 95 % band.

    Args:
        curves: of each model x, y and the band's lower and upper end.
        kind: see above.
        entries: of the legend, by model.
        chance: what a constant answer reaches, of precision; None where nobody knows.
    """
    with plt.rc_context(STYLE):
        figure, plot = axes(4.3, len(curves))
        if kind == "roc":
            plot.plot([0, 1], [0, 1], color=FAINT, linestyle=":", linewidth=1.5)
        elif chance is not None:
            plot.axhline(chance, color=FAINT, linestyle=":", linewidth=1.5)
        for number, (name, (x, y, low, high)) in enumerate(curves.items()):
            colour = of(COLOURS, number)
            plot.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
            plot.plot(x, y, color=colour, linewidth=2, label=entries[name])
        names = {"roc": ("1 - specificity", "recall"), "pr": ("recall", "precision")}[kind]
        plot.set(xlabel=names[0], ylabel=names[1], xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        legend(figure, plot)
        return svg(figure, kind)


def forest(comparison: dict, title: str, name: str) -> str:
    """Differences between two models with intervals, the metrics below each other; 0 is no difference."""
    cells = {metric: cell for metric, cell in comparison["metrics"].items() if cell["difference"] is not None}
    places = np.arange(len(cells))[::-1].astype(float)
    with plt.rc_context(STYLE):
        figure, plot = axes(1.1 + 0.34 * len(cells), 0)
        plot.axvline(0, color=INK, linewidth=1)
        for place, cell in zip(places, cells.values(), strict=True):
            colour = of(COLOURS, 0 if "p" in cell else 7)  # what is not tested supports no claim
            if cell["interval"] is not None:
                plot.plot(cell["interval"], [place, place], color=colour, linewidth=2)
            plot.plot(cell["difference"], place, color=colour, marker=of(MARKERS, 0), markersize=7)
        plot.set_yticks(places, [metric_name(metric) for metric in cells])
        plot.grid(axis="y", visible=False)
        plot.set(ylim=(-0.6, len(cells) - 0.4), xlabel=title)
        return svg(figure, name)


def study_metrics(summary: dict, labels: Mapping[str, str]) -> str:
    """The study's four metrics at 0.5: a mark a model with its interval, the baselines as strokes."""
    names = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1"}
    place = np.arange(len(names))[::-1].astype(float)
    with plt.rc_context(STYLE):
        figure, plot = axes(3.7, len(summary["models"]) + 2)
        shift = shifts(len(summary["models"]), 0.24)
        for number, (name, block) in enumerate(summary["models"].items()):
            value, *spread = zip(*[reach(block, "test", metric) for metric in names], strict=True)
            style = {"color": of(COLOURS, number), "fmt": of(MARKERS, number), "markersize": 7}
            plot.errorbar(value, place + shift[number], xerr=spread, capsize=3, label=labels[name], **style)
        for line, name in zip(("-", ":"), ("always_abnormal", "always_normal"), strict=True):
            value = [_nan(summary["baselines"][name]["test"][metric]) for metric in names]
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
            value, *spread = zip(*[reach(block["findings"][name], "test") for name in names], strict=True)
            style = {"color": of(COLOURS, number), "fmt": of(MARKERS, number), "markersize": 6}
            plot.errorbar(value, place + shift[number], xerr=spread, capsize=3, label=labels[model], **style)
        plot.set(xlim=(-0.03, 1.03), ylim=(-0.6, len(names) - 0.4), xlabel="AUROC")
        plot.set_yticks(place, [name.replace("_", " ") for name in names])
        plot.grid(axis="y", visible=False)
        legend(figure, plot)
        return svg(figure, "findings")


class Panel(NamedTuple):
    """A plot of a metric over a setting: of each line a block a place, None where there is none.

    Attributes:
        lines: by entry of the legend the blocks; AUROC stands in them under `key`.
        key: see `lines`.
        places: along x, and `ticks` what is written there; none where the panel below has them.
        ticks: see `places`.
        names: of both axes.
        baseline: where a dotted line lies.
        shift: how far lines stand apart along x.
    """

    lines: Mapping[str, Sequence[dict | None]]
    key: str
    places: Sequence[float]
    ticks: Sequence[str]
    names: tuple[str, str]
    baseline: float | None
    shift: float


def panels(panels: Sequence[Panel], height: float, name: str, share: Mapping[str, bool]) -> str:
    """Panels below each other, each so many inches high, which share an axis: a line a model with its intervals."""
    entries = len(panels[0].lines)
    with plt.rc_context(STYLE):
        size = (WIDTH, height * len(panels) + 0.24 * entries)
        figure, plots = plt.subplots(len(panels), figsize=size, layout="constrained", squeeze=False, **share)
        for plot, panel in zip(plots[:, 0], panels, strict=True):
            if panel.baseline is not None:
                plot.axhline(panel.baseline, color=FAINT, linestyle=":", linewidth=1.5)
            shift = shifts(entries, panel.shift)
            for i, (entry, blocks) in enumerate(panel.lines.items()):
                y, *spread = zip(*[reach(block, panel.key) for block in blocks], strict=True)
                style = {"color": of(COLOURS, i), "marker": of(MARKERS, i), "linewidth": 1.6, "capsize": 3}
                plot.errorbar(np.array(panel.places) - shift[i], y, yerr=spread, label=entry, **style)
            if panel.ticks:
                plot.set_xticks(panel.places, panel.ticks)
            plot.set(xlabel=panel.names[0], ylabel=panel.names[1])
        legend(figure, plots[0, 0])
        return svg(figure, name)


def heat_maps(
    maps: Mapping[str, np.ndarray], texts: Mapping[str, Sequence[Sequence[str]]], framed: Mapping[str, np.ndarray],
    rows: Sequence[str], columns: Sequence[str], name: str,
) -> str:  # fmt: skip
    """AUROC by source trained on and tested on, (rows, columns) a title; NaN where there is none.

    Args:
        maps: by title.
        texts: what is written on each field.
        framed: which fields have a frame.
        rows: names of the sources trained on.
        columns: names of those tested on.
        name: of the figure.
    """
    with plt.rc_context(STYLE | {"axes.grid": False}):
        height = len(maps) * (0.42 * len(rows) + 1.0)
        figure, plots = plt.subplots(len(maps), figsize=(WIDTH, height), layout="constrained", squeeze=False)
        for plot, (title, area) in zip(plots[:, 0], maps.items(), strict=True):
            plot.pcolormesh(np.ma.masked_invalid(area), cmap="cividis", vmin=0.5, vmax=1, edgecolors="none")
            for i, j in np.ndindex(area.shape):
                colour = INK if np.isnan(area[i, j]) else "#ffffff" if area[i, j] < 0.75 else "#000000"
                plot.text(j + 0.5, i + 0.5, texts[title][i][j], ha="center", va="center", color=colour)
                if framed[title][i, j]:
                    plot.add_patch(Rectangle((j + 0.03, i + 0.05), 0.94, 0.9, fill=False, edgecolor=INK, linewidth=1.6))
            plot.set_xticks(np.arange(len(columns)) + 0.5, columns)
            plot.set_yticks(np.arange(len(rows)) + 0.5, rows)
            plot.set(title=title, ylim=(len(rows), 0), xlabel="tested on", ylabel="trained on")
        return svg(figure, name)


def reliability(models: Mapping[str, Mapping[str, np.ndarray]], stages: Mapping[str, str]) -> str:
    """Share of abnormal images over the probability said: a colour a model, its second stage dashed.

    Args:
        models: by entry of the legend and stage three rows, of a bin what was said, what is, and its share of all
            images, which is the area of its mark.
        stages: how the legend calls each.
    """
    with plt.rc_context(STYLE):
        figure, plot = axes(4.3, sum(map(len, models.values())))
        plot.plot([0, 1], [0, 1], color=FAINT, linestyle=":", linewidth=1.5)
        for number, (entry, by_stage) in enumerate(models.items()):
            for place, (stage, (x, y, images)) in enumerate(by_stage.items()):
                style = {"color": of(COLOURS, number), "zorder": 2 if place else 3}
                line = {"linestyle": "--" if place else "-", "linewidth": 2, "label": f"{entry}, {stages[stage]}"}
                plot.plot(x, y, **line, **style)
                plot.scatter(x, y, 200 * images, marker=of(MARKERS, number), **style)
        limits = {"xlim": (-0.02, 1.02), "ylim": (-0.02, 1.02), "aspect": "equal"}
        plot.set(xlabel="mean probability said", ylabel="share of abnormal images", **limits)
        legend(figure, plot)
        return svg(figure, "reliability")


def kept(models: Mapping[str, Sequence[dict]], shares: Sequence[int]) -> str:
    """Accuracy on the images that are kept: of each model a block a share (per cent), with its band."""
    with plt.rc_context(STYLE):
        figure, plot = axes(3.4, len(models))
        for number, (entry, blocks) in enumerate(models.items()):
            style = {"color": of(COLOURS, number)}
            ends = [block["test_interval"]["accuracy"] or [np.nan] * 2 for block in blocks]
            low, high = 100 * np.array(ends).T
            plot.fill_between(shares, low, high, alpha=0.18, linewidth=0, **style)
            value = [100 * block["test"]["accuracy"] for block in blocks]
            plot.plot(shares, value, marker=of(MARKERS, number), linewidth=2, label=entry, **style)
        plot.set(xlabel="images kept, per cent", ylabel="accuracy on them, per cent", xlim=(101, 49))
        legend(figure, plot)
        return svg(figure, "referral")


def losses(models: Mapping[str, Sequence[pd.DataFrame]], lines: Mapping[str, str]) -> str:
    """Loss by epoch, a line a run and loss; a dot where validation's is lowest.

    Args:
        models: by entry of the legend each run's table of epochs.
        lines: the losses, columns of such a table, and how each is drawn.
    """
    with plt.rc_context(STYLE):
        figure, plot = axes(3.4, len(models))
        for number, (entry, tables) in enumerate(models.items()):
            colour, name = of(COLOURS, number), entry
            for table in tables:
                epochs, val = table["epoch"] + 1, table["val/loss"]
                for loss, line in lines.items():
                    plot.plot(epochs, table[loss], line, color=colour, linewidth=1.2, label=name)
                    name = None
                if val.notna().any():
                    plot.plot(epochs[val.idxmin()], val.min(), "o", color=colour, markersize=5)
        plot.set(xlabel="epoch", ylabel="loss")
        legend(figure, plot)
        return svg(figure, "history")


def reach(block: dict | None, key: str, metric: str = "auroc") -> tuple[float, float, float]:
    """A metric of a block, and how far its interval reaches below and above; NaN and 0 where there is none."""
    value = None if block is None else block.get(key, {}).get(metric)
    if value is None:
        return np.nan, 0.0, 0.0
    low, high = block[f"{key}_interval"][metric] or (value, value)
    return value, max(value - low, 0.0), max(high - value, 0.0)


def _nan(value: float | None) -> float:
    return np.nan if value is None else value
