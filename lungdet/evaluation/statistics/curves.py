"""Curves: ROC and precision-recall of a model, the mean over its seeds, with a band of redrawn test patients."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lungdet.evaluation.statistics.bootstrap import multiplicities

POINTS = np.linspace(0, 1, 101)
DRAWS = 200
"""Enough for a band in a picture; numbers in the text take more."""


class Curve(NamedTuple):
    """y over `x`, and where 95 % of redrawn test parts have it; NaN where undefined."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curves(tables: Sequence[pd.DataFrame], label: str, kind: str) -> Curve:
    """`roc` (recall over 1 - specificity) or `pr` (precision over recall) of one label.

    Args:
        tables: the same images' predictions, one table a seed.
        label: which predictions.
        kind: see above.
    """
    table = tables[0]
    known = table[f"target_{label}"].notna().to_numpy()
    if table.loc[known, f"target_{label}"].nunique() < 2:
        blank = np.full(len(POINTS), np.nan)
        return Curve(POINTS, blank, blank, blank)
    patient, patients = pd.factorize(table.loc[known, "patient_id"])
    once = np.ones((1, len(patients)), np.int32)
    drawn = [once, *(times for _, times in multiplicities(len(patients), DRAWS))]
    heights = [
        np.mean([_at_points(table[known], label, kind, patient, times) for table in tables], axis=0) for times in drawn
    ]
    return Curve(POINTS, heights[0][0], *np.nanquantile(np.concatenate(heights[1:]), [0.025, 0.975], axis=0))


def _at_points(table: pd.DataFrame, label: str, kind: str, patient: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The curve of some draws (b, P) at `POINTS`, (b, points)."""
    logit = table[f"logit_{label}"].to_numpy()
    order = np.argsort(-logit, kind="stable")
    last = np.append(np.diff(logit[order]) != 0, True)  # images of the same log-odds are one step
    weight = times[:, patient[order]]
    hit = (table[f"target_{label}"].to_numpy()[order] == 1).astype(np.int32)
    images, hits = (np.cumsum(counts, axis=1)[:, last] for counts in (weight, weight * hit))
    heights = np.full((len(times), len(POINTS)), np.nan)
    for draw, (after, reached) in enumerate(zip(images, hits, strict=True)):
        alarms = after - reached
        if not reached[-1] or not alarms[-1]:
            continue
        if kind == "roc":
            heights[draw] = np.interp(POINTS, np.append(0, alarms / alarms[-1]), np.append(0, reached / reached[-1]))
        else:
            # From the first hit on: what is ranked above it has no recall.
            step = np.minimum(np.searchsorted(reached / reached[-1], POINTS.clip(1e-9)), len(reached) - 1)
            heights[draw] = reached[step] / np.maximum(after[step], 1)
    return heights
