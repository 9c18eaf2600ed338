"""Drawing: the style that every figure of the report shares, and a figure as an SVG element of the page."""

import io
import re

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Mid tones that stand out from white and from near-black, told apart by the colour-blind (after Okabe and Ito).
COLOURS = ("#2a86d1", "#dd7a1f", "#1fa187", "#c2559b", "#8c7ae6", "#b59b00", "#d1495b", "#6c8ea0")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK, FAINT = "#010203", "#040506"  # replaced in the SVG by what follows the page's colours
STYLE = {
    "svg.fonttype": "none",  # text stays text: readable, selectable, found by search
    "svg.hashsalt": "lungdet",
    "text.parse_math": False,  # a name with two $ is a name
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
WIDTH = 4.7  # inches; wide enough to read when a phone shrinks it to its own width


def axes(height: float, entries: int) -> tuple[Figure, Axes]:
    """Axes as high as this in inches, and room for a legend of so many entries below."""
    return plt.subplots(figsize=(WIDTH, height + 0.24 * entries), layout="constrained")


def legend(figure: Figure, plot: Axes) -> None:
    """Below the plot and one entry a line, so that long names of models fit a phone."""
    handles, names = plot.get_legend_handles_labels()
    # matplotlib lists lines before error bars; the models come first.
    order = sorted(range(len(names)), key=lambda i: names[i].startswith("always "))
    handles, names = [handles[i] for i in order], [names[i] for i in order]
    size = min(11, 560 / max(map(len, names)))  # the longest name has the figure's width
    figure.legend(handles, names, loc="outside lower left", ncols=1, handlelength=1.6, fontsize=size)


def svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element whose ids do not clash with another figure's on the same page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    element = text.getvalue()
    element = element[element.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", element)
    return element.replace(INK, "currentColor").replace(FAINT, "#8b949e80")


def shifts(count: int, width: float) -> np.ndarray:
    """Where marks of several models stand about one place, so that none hides another."""
    return np.linspace(width, -width, count) if count > 1 else np.zeros(1)


def colour_of(number: int) -> str:
    """The colour of a model by its place, from the first again after the last."""
    return COLOURS[number % len(COLOURS)]


def marker_of(number: int) -> str:
    """Its marker: another one each time that the colours begin again, so that none has the two of another."""
    return MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]
