"""What a dashboard shows of a tested run: its curves, its most confident mistakes, and what augmentation does."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.calibration import calibration_curve

from lungdet.data.augment import draw
from lungdet.data.datamodule import RadiographDataModule

BINS = 10  # of a calibration curve, as many images in each
BARS = 20  # of a histogram of probabilities
LISTED = 20  # images of a table
AUGMENTED = 8  # training images
COLUMNS = ["image", "dataset", "label", "labelled", "probability"]

Picture = Callable[[str], Any]


def charts(table: pd.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    """Charts of each label, by `kind/label`: confusion at 0.5, ROC, precision and recall, calibration, histogram.

    Args:
        table: predictions, see `lungdet.runs.predictions`.
        labels: what was predicted; a chart of one that lacks a class says nothing and is left out.
    """
    named = {}
    for label in labels:
        known = table[table[f"target_{label}"].notna()]
        y, p = known[f"target_{label}"].to_numpy(int), known[f"probability_{label}"].to_numpy()
        if len(np.unique(y)) == 2:
            named |= {f"{kind}/{label}": chart for kind, chart in _of_label(y, p, label)}
    return named


def mistakes(table: pd.DataFrame, labels: Sequence[str], picture: Picture | None = None) -> Any:
    """A `wandb.Table` of the images that a model is most sure about and wrong, at 0.5, the surest first.

    Args:
        table: predictions.
        labels: an image is listed once for each that is wrong.
        picture: of an image by its id, for a column with radiographs.
    """
    rows = _rows(table, labels)
    wrong = rows[(rows["probability"] >= 0.5) != (rows["labelled"] == 1)]
    order = (wrong["probability"] - 0.5).abs().sort_values(ascending=False, kind="stable").index
    return _table(wrong.loc[order[:LISTED]], picture)


def sample(table: pd.DataFrame, labels: Sequence[str], picture: Picture | None = None) -> Any:
    """A `wandb.Table` of images that are the same in every run that is tested on them."""
    order = sorted(table["image_id"], key=lambda name: zlib.crc32(name.encode()))
    return _table(_rows(table[table["image_id"].isin(order[:LISTED])], labels), picture)


def augmented(data: RadiographDataModule) -> list[Any]:
    """Training images, each beside what the first epoch made of it, as `wandb.Image`."""
    import wandb

    serving, rows = data.serving, data.rows("train")[:AUGMENTED]
    names, images = data.manifest["image_id"].iloc[rows], [data.store.images[row] for row in rows]
    draws = [draw(serving.seed, 0, name, 0) for name in names]
    changed = serving.augmentation(images, draws, *images[0].shape)
    return [wandb.Image(np.hstack(pair), caption=name) for name, *pair in zip(names, images, changed, strict=True)]


def pictures(data: RadiographDataModule) -> Picture:
    """What makes a `wandb.Image` of the image of an id."""
    import wandb

    rows = pd.Series(data.manifest.index, data.manifest["image_id"])
    return lambda name: wandb.Image(np.asarray(data.store.images[rows[name]]))


def _of_label(y: np.ndarray, p: np.ndarray, label: str) -> Iterator[tuple[str, Any]]:
    from wandb import plot

    classes = ["normal" if label == "abnormal" else f"no {label}", label]
    probabilities = np.stack([1 - p, p], 1)
    called = (p >= 0.5).astype(int)
    yield "confusion", plot.confusion_matrix(y_true=y, preds=called, class_names=classes, title=f"At 0.5: {label}")
    yield "roc", plot.roc_curve(y, probabilities, classes, [1], title=f"ROC: {label}")
    yield "pr", plot.pr_curve(y, probabilities, classes, [1], title=f"Precision and recall: {label}")
    observed, predicted = calibration_curve(y, p, n_bins=BINS, strategy="quantile")
    lines = {"observed": (predicted, observed), "calibrated": ([0, 1], [0, 1])}
    yield "calibration", _lines(lines, f"Share of {label} by probability", "probability")
    edges = np.linspace(0, 1, BARS + 1)
    counts = {name: np.histogram(p[y == i], edges)[0] for i, name in enumerate(classes)}
    bars = {name: (edges[:-1] + 0.5 / BARS, count) for name, count in counts.items()}
    yield "probability", _lines(bars, f"Images by probability of {label}", "probability")


def _lines(lines: dict[str, tuple[Sequence[float], Sequence[float]]], title: str, axis: str) -> Any:
    from wandb import plot

    xs, ys = ([[float(value) for value in values[i]] for values in lines.values()] for i in (0, 1))
    return plot.line_series(xs, ys, keys=[*lines], title=title, xname=axis)


def _rows(table: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """A row an image and label that is known, in `COLUMNS`."""
    parts = [
        pd.DataFrame(
            {
                "image": table["image_id"],
                "dataset": table["dataset"],
                "label": label,
                "labelled": table[f"target_{label}"],
                "probability": table[f"probability_{label}"],
            }
        )
        for label in labels
    ]
    return pd.concat(parts, ignore_index=True).dropna(subset="labelled")


def _table(rows: pd.DataFrame, picture: Picture | None) -> Any:
    import wandb

    values = [[*row] for row in rows[COLUMNS].itertuples(index=False)]
    if picture is None:
        return wandb.Table(COLUMNS, values)
    return wandb.Table([*COLUMNS, "radiograph"], [[*row, picture(row[0])] for row in values])
