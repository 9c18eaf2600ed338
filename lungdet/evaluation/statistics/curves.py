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


def curves(tables: Sequence[pd.DataFrame], label: str, seed: int = 0) -> dict[str, Curve]:
    """`roc` (recall over 1 - specificity) and `pr` (precision over recall) of one label.

    Args:
        tables: the same images' predictions, one table a seed.
        label: which predictions.
        seed: of the draws.
    """
    table = tables[0]
    known = table[f"target_{label}"].notna().to_numpy()
    if table.loc[known, f"target_{label}"].nunique() < 2:
        nothing = np.full(len(POINTS), np.nan)
        return dict.fromkeys(("roc", "pr"), Curve(POINTS, nothing, nothing, nothing))
    patient, patients = pd.factorize(table.loc[known, "patient_id"], sort=True)
    once = np.ones((1, len(patients)), np.int32)
    drawn = [once, *(times for _, times in multiplicities(len(patients), DRAWS, seed))]
    found = {"roc": [], "pr": []}
    for times in drawn:
        by_seed = [_at_points(one[known], label, patient, times) for one in tables]
        for kind, values in found.items():
            values.append(np.mean([one[kind] for one in by_seed], axis=0))
    ends = {kind: np.nanquantile(np.concatenate(values[1:]), [0.025, 0.975], axis=0) for kind, values in found.items()}
    return {kind: Curve(POINTS, values[0][0], *ends[kind]) for kind, values in found.items()}


def _at_points(table: pd.DataFrame, label: str, patient: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
    """Both curves of some draws (b, P) at `POINTS`, each (b, points)."""
    logit = table[f"logit_{label}"].to_numpy()
    order = np.argsort(-logit, kind="stable")
    last = np.append(np.diff(logit[order]) != 0, True)  # images of the same log-odds are one step
    weight = times[:, patient[order]]
    hit = (table[f"target_{label}"].to_numpy()[order] == 1).astype(np.int32)
    seen, hits = (np.cumsum(one, axis=1)[:, last] for one in (weight, weight * hit))
    roc, pr = np.full((2, len(times), len(POINTS)), np.nan)
    for draw, (after, found) in enumerate(zip(seen, hits, strict=True)):
        alarms = after - found
        if not found[-1] or not alarms[-1]:
            continue
        roc[draw] = np.interp(POINTS, np.append(0, alarms / alarms[-1]), np.append(0, found / found[-1]))
        reached = np.minimum(np.searchsorted(found / found[-1], POINTS), len(found) - 1)
        pr[draw] = found[reached] / np.maximum(after[reached], 1)
    return {"roc": roc, "pr": pr}
