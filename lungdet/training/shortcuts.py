"""Shortcuts: how well the labels are guessed from what is not the lungs, under the models' own protocol.

Each shortcut is a plain logistic regression on a few numbers of an image: what the manifest says beside the label (one
column alone, and all together), an 8 x 8 thumbnail, and the frame around the chest. It is fitted on the training part
and predicts validation and test. A model that does not clearly beat them may have learnt no more than they did.
"""

import logging
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from lungdet.machine import ranks

if TYPE_CHECKING:
    from lungdet.data.datamodule import RadiographDataModule
    from lungdet.runs.folder import Run

log = logging.getLogger(__name__)

THUMBNAIL = 8
"""Side of the thumbnail, pixels."""
FRAME = 0.08
"""Width of the border, as a share of the image's side."""
SEGMENTS = 8
"""Numbers that each of the border's four sides is averaged down to."""
STRENGTH = 0.1
"""scikit-learn's `C`, for features of deviation 1: tames 64 alike numbers of 300 images, vanishes among thousands."""
ONE_CLASS = 36.0
"""Log-odds of the only class that training knows: about the surest that a probability in float64 can be."""
BLOCK = 1024  # images read from the store at a time


def record(run: "Run", data: "RadiographDataModule") -> None:
    """Write the shortcuts' predictions into the run folder and log the strongest one; the first process alone does."""
    if ranks.rank():
        return
    tables = predict(data)
    for part, table in tables.items():
        run.write_predictions(f"shortcuts_{part}", table)
    areas = _validation_auroc(tables["val"], data)
    if areas.empty:
        log.info("no shortcut can be tried: nothing beside the lungs differs between the training images")
    else:
        log.info(
            "strongest shortcut: %s, with a validation AUROC of %.3f%s",
            "all that is known beside the pixels" if areas.idxmax() == "all" else areas.idxmax(), areas.max(),
            " (mean over findings)" if len(data.serving.labels) > 1 else "",
        )  # fmt: skip


def predict(data: "RadiographDataModule") -> dict[str, pd.DataFrame]:
    """The shortcuts' predictions of validation and test images.

    A shortcut whose values do not differ between the training images is left out: with one source there is no
    `dataset`, with single visits no `visits` and no `visit`.

    Args:
        data: set up.

    Returns:
        For `val` and `test` a table, one row an image and shortcut: `image_id`, `shortcut` and the log-odds
        `logit_<label>` for each label of the task. A label of which the training part knows one class or none gets a
        constant. Labels stand in the run's own predictions.
    """
    manifest = data.manifest
    rows = {part: data.rows(part) for part in ("train", "val", "test")}
    described = {name: _encoded(column, rows["train"]) for name, column in description(manifest).items()}
    shortcuts = described | {"all": np.concatenate([*described.values()], axis=1)}
    if sum(block.shape[1] > 0 for block in described.values()) < 2:
        del shortcuts["all"]  # it would say what the only one says
    thumbnail, border = pixels(data.store.images)
    shortcuts |= {"thumbnail": _varying(thumbnail, rows["train"]), "border": _varying(border, rows["train"])}
    tables = {"val": [], "test": []}
    for name, features in shortcuts.items():
        if not features.shape[1]:
            continue
        logits = {part: {} for part in tables}
        for label in data.serving.labels:
            regression = _fitted(features[rows["train"]], manifest[label].to_numpy()[rows["train"]])
            for part in tables:
                logits[part][f"logit_{label}"] = regression(features[rows[part]])
        for part, table in tables.items():
            ids = manifest["image_id"].iloc[rows[part]].to_numpy()
            table.append(pd.DataFrame({"image_id": ids, "shortcut": name, **logits[part]}))
    columns = ["image_id", "shortcut", *[f"logit_{label}" for label in data.serving.labels]]
    return {
        part: pd.concat(table, ignore_index=True) if table else pd.DataFrame(columns=columns)
        for part, table in tables.items()
    }


def description(manifest: pd.DataFrame) -> dict[str, pd.Series]:
    """What is known of an image beside its pixels and labels, a column a shortcut.

    Numbers of visits have a long tail (up to 184 in ChestX-ray14) and are taken as logarithms.
    """
    visits = manifest.groupby("patient_id")["image_id"].transform("size")
    return {
        "dataset": manifest["dataset"],
        "view": manifest["view"],
        "age": manifest["age"],
        "sex": manifest["sex"],
        "visits": np.log1p(visits.astype("float64")),
        "visit": np.log1p(manifest["visit"].astype("float64")),
    }


def pixels(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each image's thumbnail (N, 64) and border (N, 32), from (N, H, W) uint8, read block by block.

    The border is the outer 8 % on each side, each side averaged to 8 numbers.
    """
    size = len(images)
    thumbnail = np.empty((size, THUMBNAIL * THUMBNAIL), np.float32)
    border = np.empty((size, 4 * SEGMENTS), np.float32)
    width = max(1, round(FRAME * images.shape[-1]))
    for start in range(0, size, BLOCK):
        for row, image in enumerate(images[start : start + BLOCK], start):
            thumbnail[row] = _shrunk(image, THUMBNAIL, THUMBNAIL)
            across = (_shrunk(image[:width], SEGMENTS, 1), _shrunk(image[-width:], SEGMENTS, 1))
            down = (_shrunk(image[:, :width], 1, SEGMENTS), _shrunk(image[:, -width:], 1, SEGMENTS))
            border[row] = np.concatenate([*across, *down])
    return thumbnail, border


def _shrunk(image: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """Means over a grid. To whole grey levels, which is ten times as fast as exact and enough for a shortcut."""
    return cv2.resize(np.ascontiguousarray(image), (columns, rows), interpolation=cv2.INTER_AREA).ravel()


def _encoded(column: pd.Series, train: np.ndarray) -> np.ndarray:
    """A column as numbers (N, d), d = 0 if it is the same on all training images.

    Words become one column each and one for missing, of those that training knows; numbers become themselves, the
    training median where missing, and a column that says where.
    """
    if pd.api.types.is_numeric_dtype(column):
        known = column.iloc[train].dropna()
        middle = known.median() if len(known) else 0.0
        numbers = np.stack([column.fillna(middle), column.isna()], axis=1).astype(np.float64)
    else:
        words = column.astype("object").where(column.notna(), "missing")
        kinds = sorted(words.iloc[train].unique())
        # Two kinds are one column: the other one would be its mirror image.
        numbers = np.stack([words == kind for kind in kinds[len(kinds) == 2 :]], axis=1).astype(np.float64)
    return _varying(numbers, train)


def _varying(features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Without the columns that are constant in training, the others with mean 0 and deviation 1 there."""
    mean, deviation = features[train].mean(0, dtype=np.float64), features[train].std(0, dtype=np.float64)
    varies = deviation > 1e-6
    return (features[:, varies] - mean[varies]) / deviation[varies]


def _fitted(features: np.ndarray, label: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """From features (N, d) to log-odds (N,), fitted where the label is known."""
    known = ~np.isnan(label)
    if len(np.unique(label[known])) < 2:
        constant = ONE_CLASS * (2 * label[known].mean() - 1) if known.any() else 0.0
        return lambda features: np.full(len(features), constant)
    # Newton's steps need few passes over many images and few features.
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # it goes on with another solver
        model = LogisticRegression(C=STRENGTH, solver="newton-cholesky").fit(features[known], label[known])
    return model.decision_function


def _validation_auroc(table: pd.DataFrame, data: "RadiographDataModule") -> pd.Series:
    """AUROC of each shortcut on validation, the mean over the labels that have both classes there."""
    labels = data.manifest.set_index("image_id")
    means = {}
    for name, rows in table.groupby("shortcut", sort=False):
        areas = []
        for label in data.serving.labels:
            target = labels.loc[rows["image_id"], label].to_numpy()
            known = ~np.isnan(target)
            if len(np.unique(target[known])) == 2:
                areas.append(roc_auc_score(target[known], rows.loc[known, f"logit_{label}"]))
        if areas:
            means[name] = float(np.mean(areas))
    return pd.Series(means, dtype="float64")
