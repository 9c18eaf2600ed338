"""Figures of the report: numbers with their intervals as SVG; what they show in words is told beside them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle

from lungdet.page.drawing import FAINT, INK, STYLE, WIDTH, axes, colour_of, legend, marker_of, shifts, svg
from lungdet.page.wording import mean_count

Mark = tuple[float, float, float]
"""A value, and how far its interval reaches below and above it."""

MOST_LINES = 6
"""Lines or bands of more models nobody can tell apart."""
LONG = 26
"""Letters of a row's name that leave a figure no width for what it shows."""


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
        figure, plot = axes(3.9 if kind == "roc" else 2.9, len(curves))
        if kind == "roc":
            plot.plot([0, 1], [0, 1], color=FAINT, linestyle=":", linewidth=1.5)
        elif chance is not None:
            plot.axhline(chance, color=FAINT, linestyle=":", linewidth=1.5)
        for number, (name, (x, y, low, high)) in enumerate(curves.items()):
            colour = colour_of(number)
            plot.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
            plot.plot(x, y, color=colour, linewidth=2, label=entries[name])
        names = {"roc": ("1 - specificity", "recall"), "pr": ("recall", "precision")}[kind]
        plot.set(xlabel=names[0], ylabel=names[1], xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        plot.set_aspect("equal" if kind == "roc" else "auto")
        legend(figure, plot)
        return svg(figure, kind)


def dots(
    rows: Sequence[str], marks: Mapping[str, Sequence[Mark]], axis: str, name: str, line: float | None = 0.5,
    limits: tuple[float, float] | None = (-0.03, 1.03), strokes: Mapping[str, Sequence[float]] | None = None,
) -> str:  # fmt: skip
    """What is measured row by row, from the top: a mark a model with its interval.

    Args:
        rows: names.
        marks: by entry of the legend a mark a row, see `reach`; a single entry needs no legend.
        axis: what the marks are of.
        name: of the figure.
        line: where a dotted line lies.
        limits: of the axis; None: as the marks need it.
        strokes: by entry of the legend what a constant answer reaches in each row.
    """
    strokes, place = strokes or {}, np.arange(len(rows))[::-1].astype(float)
    entries = len(marks) + len(strokes) if len(marks) + len(strokes) > 1 else 0
    longest = max(map(len, rows))
    long = longest > LONG  # names stand above their marks, which have the width then
    name_height, height = 0.2 * long, max(0.28, 0.14 * len(marks)) + 0.2 * long  # inches a row
    middle = place - name_height / height / 2
    with plt.rc_context(STYLE):
        figure, plot = axes(0.9 + height * len(rows), entries)
        if line is not None:
            style = {"color": FAINT if line else INK, "linestyle": ":" if line else "-", "linewidth": 1.5}
            plot.vlines([line] * len(rows), place - 0.5, place + 0.5 - name_height / height, **style)
        shift = shifts(len(marks), 0.24)
        for number, (entry, of_entry) in enumerate(marks.items()):
            value, *spread = zip(*of_entry, strict=True)
            style = {"color": colour_of(number), "fmt": marker_of(number), "markersize": 6, "capsize": 3}
            plot.errorbar(value, middle + shift[number], xerr=spread, label=entry, **style)
        for pattern, (entry, values) in zip(("-", ":"), strokes.items(), strict=False):
            plot.vlines(values, middle - 0.38, middle + 0.38, color=INK, linestyle=pattern, label=entry)
        plot.set(ylim=(-0.6, len(rows) - 0.4), xlabel=axis, **({"xlim": limits} if limits else {}))
        plot.locator_params(axis="x", nbins=6)
        plot.set_yticks(middle, [""] * len(rows) if long else rows)
        for row, y in zip(rows, place + 0.5 - name_height / height / 2, strict=True) if long else ():
            style = {"va": "center", "fontsize": min(9, 540 / longest), "transform": plot.get_yaxis_transform()}
            plot.text(0.01, y, row, **style).set_in_layout(False)
        plot.grid(axis="y", visible=False)
        if entries:
            legend(figure, plot)
        return svg(figure, name)


def bars(rows: Sequence[str], lengths: Mapping[str, Sequence[float]], axis: str, name: str) -> str:
    """A bar a row, from the top, for each entry of the legend; `axis` is what their lengths are."""
    place = np.arange(len(rows))[::-1].astype(float)
    with plt.rc_context(STYLE):
        entries = len(lengths) if len(lengths) > 1 else 0
        figure, plot = axes(0.9 + max(0.24, 0.11 * len(lengths)) * len(rows), entries)
        thickness = 0.8 / len(lengths)
        shift = shifts(len(lengths), (0.8 - thickness) / 2)
        for number, (entry, of_entry) in enumerate(lengths.items()):
            plot.barh(place + shift[number], of_entry, thickness, color=colour_of(number), label=entry)
        plot.set(ylim=(-0.6, len(rows) - 0.4), xlabel=axis)
        plot.set_yticks(place, rows)
        plot.grid(axis="y", visible=False)
        if entries:
            legend(figure, plot)
        return svg(figure, name)


def confusion(matrices: Mapping[str, Sequence[float]]) -> str:
    """Images called abnormal and normal, a field a kind, shaded by its share of those that are what they are.

    Args:
        matrices: by title the abnormal images called so and called normal, and the normal ones likewise.
    """
    across = min(2, len(matrices))
    down = -(-len(matrices) // across)
    with plt.rc_context(STYLE | {"axes.grid": False, "axes.spines.left": False, "axes.spines.bottom": False}):
        figure, plots = plt.subplots(down, across, figsize=(WIDTH, 2.1 * down), layout="constrained", squeeze=False)
        for plot in plots.flat[len(matrices) :]:
            plot.remove()
        for number, (plot, (title, counts)) in enumerate(zip(plots.flat, matrices.items(), strict=False)):
            table = np.reshape(counts, (2, 2))
            share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
            plot.pcolormesh(np.ones((2, 2)), alpha=0.8 * share, cmap=ListedColormap([colour_of(number)]))
            for i, j in np.ndindex(2, 2):
                words = f"{mean_count(table[i, j])}\n{100 * share[i, j]:.0f} %"
                plot.text(j + 0.5, i + 0.5, words, ha="center", va="center")
            plot.set_xticks([0.5, 1.5], ["called\nabnormal", "called\nnormal"])
            plot.set_yticks([0.5, 1.5], ["abnormal", "normal"] if number % across == 0 else ["", ""])
            plot.tick_params(length=0)
            plot.set(ylim=(2, 0))
            plot.set_title(title, fontsize=11)
        return svg(figure, "confusion")


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
                style = {"color": colour_of(i), "marker": marker_of(i), "linewidth": 1.6, "capsize": 3}
                plot.errorbar(np.array(panel.places) - shift[i], y, yerr=spread, label=entry, **style)
            if panel.ticks:
                plot.set_xticks(panel.places, panel.ticks)
            plot.set(xlabel=panel.names[0], ylabel=panel.names[1])
        legend(figure, plots[0, 0])
        return svg(figure, name)


def heat_maps(
    maps: Mapping[str, np.ndarray], texts: Mapping[str, Sequence[Sequence[str]]], framed: Mapping[str, np.ndarray],
    rows: Sequence[str], columns: Sequence[str],
) -> str:  # fmt: skip
    """AUROC by source trained on and tested on, (rows, columns) a title; NaN where there is none.

    Args:
        maps: by title.
        texts: what is written on each field.
        framed: which fields have a frame.
        rows: names of the sources trained on.
        columns: names of those tested on.
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
        return svg(figure, "generalisation")


def reliability(
    models: Mapping[str, Mapping[str, Sequence[Mark]]], probabilities: Mapping[str, Sequence[float]]
) -> str:
    """Share of abnormal images over the probability said: a mark a bin with its interval, a colour a model.

    Args:
        models: by entry of the legend a mark a bin, see `reach`.
        probabilities: by the same entry each bin's mean probability.
    """
    with plt.rc_context(STYLE):
        figure, plot = axes(3.4, len(models))
        plot.plot([0, 1], [0, 1], color=FAINT, linestyle=":", linewidth=1.5)
        for number, (entry, marks) in enumerate(models.items()):
            value, *spread = zip(*marks, strict=True)
            style = {"color": colour_of(number), "fmt": marker_of(number), "markersize": 6, "capsize": 3}
            plot.errorbar(probabilities[entry], value, yerr=spread, label=entry, **style)
        limits = {"xlim": (-0.02, 1.02), "ylim": (-0.02, 1.02)}
        plot.set(xlabel="mean probability said", ylabel="share of abnormal images", **limits)
        legend(figure, plot)
        return svg(figure, "reliability")


def referral(models: Mapping[str, Sequence[dict]], shares: Sequence[int]) -> str:
    """Accuracy on the images that are kept: of each model a block a share (per cent), with its band."""
    with plt.rc_context(STYLE):
        figure, plot = axes(2.9, len(models))
        for number, (entry, blocks) in enumerate(models.items()):
            style = {"color": colour_of(number)}
            ends = [block["test_interval"]["accuracy"] or [np.nan] * 2 for block in blocks]
            low, high = 100 * np.array(ends).T
            plot.fill_between(shares, low, high, alpha=0.18, linewidth=0, **style)
            value = [100 * block["test"]["accuracy"] for block in blocks]
            plot.plot(shares, value, marker=marker_of(number), linewidth=2, label=entry, **style)
        plot.set(xlabel="images kept, per cent", ylabel="accuracy on them, per cent", xlim=(101, 49))
        legend(figure, plot)
        return svg(figure, "referral")


def losses(models: Mapping[str, Sequence[pd.DataFrame]]) -> str:
    """Loss by epoch, dashed in training and solid in validation, with a dot where validation's is lowest.

    Args:
        models: by entry of the legend each run's table of epochs.
    """
    with plt.rc_context(STYLE):
        figure, plot = axes(2.9, len(models))
        for number, (entry, tables) in enumerate(models.items()):
            colour = colour_of(number)
            for run, table in enumerate(tables):
                epochs, val = table["epoch"] + 1, table["val/loss"]
                plot.plot(epochs, table["train/loss"], "--", color=colour, linewidth=1.2)
                plot.plot(epochs, val, "-", color=colour, linewidth=1.2, label=None if run else entry)
                if val.notna().any():
                    plot.plot(epochs[val.idxmin()], val.min(), "o", color=colour, markersize=5)
        plot.set(xlabel="epoch", ylabel="loss")
        plot.locator_params(axis="x", integer=True)
        legend(figure, plot)
        return svg(figure, "history")


def reach(block: dict | None, key: str, metric: str = "auroc") -> Mark:
    """A metric of a block, and how far its interval reaches below and above; NaN and 0 where there is none."""
    value = None if block is None else block.get(key, {}).get(metric)
    if value is None:
        return np.nan, 0.0, 0.0
    low, high = block.get(f"{key}_interval", {}).get(metric) or (value, value)
    return value, max(value - low, 0.0), max(high - value, 0.0)
