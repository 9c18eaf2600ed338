"""Selective prediction: what a model reaches on the images that it is surest of, if a reader takes the others.

An image is the surer the further its probability is from 0.5, the threshold that it is called at (Geifman and El-Yaniv
2017, arXiv 1705.08500). Of images that are equally sure a share is kept: what counts is what keeping some of them at
random gives on average.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from lungdet.evaluation.statistics import metrics
from lungdet.evaluation.statistics.bootstrap import multiplicities
from lungdet.evaluation.statistics.cases import Case, Undefined, mean_of_defined
from lungdet.evaluation.statistics.intervals import Estimate
from lungdet.evaluation.statistics.measure import as_block, measurable, supporting, withdraw_certain
from lungdet.evaluation.statistics.scales import SHARE, UNBOUNDED, Scale
from lungdet.machine import hardware

KEPT = tuple(range(100, 45, -5))
"""Shares of the images that a model keeps, in per cent, the rest going to a reader."""
METRICS = {
    "accuracy": "no label is known, or no finding both present and absent",
    "recall": "no image that is kept is abnormal",
    "specificity": "no image that is kept is normal",
}
"""What is measured on the images that are kept, and why it may be undefined."""


def of_model(tables: Sequence[pd.DataFrame], labels: Sequence[str], draws: int) -> dict:
    """What a model reaches at 0.5 on the images that it keeps, means over seeds.

    With findings the images are sorted for each finding by itself, and numbers are means over the findings that are
    there both present and absent.

    Args:
        tables: the same images' predictions, one table a seed.
        labels: `abnormal`, or findings.
        draws: redrawn test parts.

    Returns:
        `kept`: by per cent kept a block of accuracy, recall, specificity and `gain`, the accuracy less that on all
        images; `risk`: a block of `area`, the mean error over 1 to 100 % kept (the area under the risk-coverage
        curve), and of `error`, that on all images, which the area is where images are referred at random.
    """
    by_metric = curves(tables, labels, draws)
    cases = [Case.of(tables[0], name) for name in measurable(tables[0], labels)]
    patient, patients = pd.factorize(tables[0]["patient_id"])
    resting = {name: supporting(metrics.METRICS[name], cases, patient) for name in METRICS}

    def estimate(values: np.ndarray, metric: str = "accuracy", share: float = 1.0, scale: Scale = SHARE) -> Estimate:
        by_seed = [Undefined(METRICS[metric]) if math.isnan(value) else float(value) for value in values[:, 0]]
        return Estimate(by_seed, values[:, 1:], len(patients), max(1, int(share * resting[metric])), scale)

    blocks, whole = {}, by_metric["accuracy"][:, :, -1]
    for per_cent in KEPT:
        at = {name: values[:, :, per_cent - 1] for name, values in by_metric.items()}
        reached = {name: estimate(values, name, per_cent / 100) for name, values in at.items()}
        gain = estimate(at["accuracy"] - whole, scale=UNBOUNDED)
        blocks[str(per_cent)] = as_block(test=reached | {"gain": gain})
        withdraw_certain(blocks[str(per_cent)], "test", {"gain": gain})
    risk = {"area": estimate(1 - by_metric["accuracy"].mean(axis=-1)), "error": estimate(1 - whole)}
    return {"kept": blocks, "risk": as_block(test=risk)}


def curves(tables: Sequence[pd.DataFrame], labels: Sequence[str], draws: int) -> dict[str, np.ndarray]:
    """Each metric by seed, test part (as it is, then redrawn ones) and per cent kept, (S, 1 + B, 100)."""
    over = measurable(tables[0], labels)
    patient, patients = pd.factorize(tables[0]["patient_id"])
    drawn = [np.ones((1, len(patients)), np.int32)]
    if len(patients) > 1:
        drawn += [times for _, times in multiplicities(len(patients), draws, 0)]
    by_seed = []
    for table in tables:
        by_label = [_of_label(table, name, patient, drawn) for name in over]
        by_label = np.array(by_label or np.full((1, len(METRICS), 1, 100), np.nan))
        mean = mean_of_defined(by_label, 0)
        mean[:, 0] = by_label[:, :, 0].mean(axis=0)  # what is undefined for one finding has no mean
        by_seed.append(mean)
    return dict(zip(METRICS, np.stack(by_seed, axis=1), strict=True))


def _of_label(table: pd.DataFrame, name: str, patient: np.ndarray, drawn: Sequence[np.ndarray]) -> np.ndarray:
    """The metrics of all draws, some (b, P) at a time, by per cent kept, (metrics, 1 + B, 100)."""
    y, logit = (table[f"{kind}_{name}"].to_numpy(np.float64) for kind in ("target", "logit"))
    sure = np.abs(logit)  # as far from 0.5 as the probability is, but without ties near 0 and 1
    order = np.argsort(-sure, kind="stable")
    order = order[~np.isnan(y[order])]
    if not len(order):
        return np.full((len(METRICS), sum(map(len, drawn)), 100), np.nan)
    abnormal, called, patient = y[order] == 1, logit[order] > 0, patient[order]
    steps = np.concatenate([[0], np.flatnonzero(np.diff(sure[order])) + 1, [len(order)]])  # equally sure: one step

    def measured(times: np.ndarray) -> np.ndarray:
        weight = np.take(times, patient, axis=1)
        images, positive = _running(weight), _running(weight * abnormal)
        kept = np.arange(1, 101) * images[:, -1:] / 100
        at = np.array([np.searchsorted(row, goal) for row, goal in zip(images[:, steps], kept, strict=True)]).clip(1)
        ends = steps[at - 1], steps[at]
        first, last = (np.take_along_axis(images, end, axis=1) for end in ends)

        def up_to(total: np.ndarray) -> np.ndarray:
            """A running count (b, N + 1) of as many images as are kept, (b, 100)."""
            before, after = (np.take_along_axis(total, end, axis=1) for end in ends)
            return before + (kept - first) / (last - first) * (after - before)

        with np.errstate(divide="ignore", invalid="ignore"):  # no image of a class: NaN
            tp, tn = up_to(_running(weight * (abnormal & called))), up_to(_running(weight * ~(abnormal | called)))
            return np.stack([(tp + tn) / kept, tp / up_to(positive), tn / up_to(images - positive)])

    with ThreadPoolExecutor(hardware.cores()) as pool:
        return np.concatenate(list(pool.map(measured, drawn)), axis=1)


def _running(counts: np.ndarray) -> np.ndarray:
    """Running sums (b, N + 1) from 0; int32 is several times as fast as int64."""
    total = np.zeros((len(counts), counts.shape[1] + 1), np.int32)
    np.cumsum(counts, axis=1, dtype=np.int32, out=total[:, 1:])
    return total
