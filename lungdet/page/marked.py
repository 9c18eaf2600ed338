"""Marked: a figure of one metric row by row, a mark a model with its interval, and the same in words."""

from collections.abc import Mapping

from lungdet.page import figures
from lungdet.page.document import Figure
from lungdet.page.wording import figure, listed, with_interval

MOST = 8
"""Marks of more models in a row, or of more rows in a model's, nobody tells apart."""


def legible(models: Mapping[str, Mapping[str, dict]]) -> bool:
    """Whether a figure of them can be read: there are few models, or few rows, which then take each other's place."""
    return len(models) <= MOST or len(next(iter(models.values()))) <= MOST


def marked(
    name: str,
    title: str,
    models: Mapping[str, Mapping[str, dict]],
    caption: str,
    metric: str = "auroc",
    key: str = "test",
    axis: str = "AUROC",
    **drawing: object,
) -> Figure:
    """A figure of what stands in blocks of a summary.

    Args:
        name: of its file.
        title: what it shows.
        models: by entry of the legend and row the block that the metric stands in under `key`; of many models each is
            a row, and the legend has the rows.
        caption: how to read it.
        metric: see `models`.
        key: see `models`.
        axis: what the marks are of.
        drawing: further arguments of `figures.dots`.
    """
    rows = list(next(iter(models.values())))
    if len(models) > MOST:
        models = {row: {entry: of_row[row] for entry, of_row in models.items()} for row in rows}
        rows = list(models[rows[0]])
    marks = {entry: [figures.reach(of_row[row], key, metric) for row in rows] for entry, of_row in models.items()}
    words = {
        row: [f"{entry} {_words(of_row[row], key, metric)}".strip() for entry, of_row in models.items()] for row in rows
    }
    return Figure(name, figures.dots(rows, marks, axis, name, **drawing), title, f"{listed(words)}.", caption)


def _words(block: dict, key: str, metric: str) -> str:
    measured = metric in block.get(f"{key}_interval", {})
    return with_interval(block, key, metric) if measured else figure(metric, block[key][metric])
