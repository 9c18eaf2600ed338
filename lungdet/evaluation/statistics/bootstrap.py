"""Bootstrap over patients: every metric on thousands of redrawn test parts at once, the same draws for every model.

A draw takes as many patients as there are, with replacement, and all images of each: images of one patient are no
independent cases. A metric of a draw is computed from sums by patient (one matrix product for all draws and models),
AUROC and average precision from a running count along the images ranked by log-odds.

Legend: B draws, P patients, N images, C cases, K sums.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy import special

from lungdet.evaluation.statistics.calibration import without_chance
from lungdet.evaluation.statistics.metrics import BINS, METRICS, calibration_bin, squared_error, surprise
from lungdet.machine import hardware

RANKED = ("auroc", "average_precision")
"""Metrics that need the order of all images; all others follow from sums over them."""
TRUE_CALIBRATION = "true_calibration"
"""The calibration error less what chance adds, whose draws its interval is made of (see `calibration`)."""


class Case(NamedTuple):
    """What one metric is computed of: labels (N,) 1 / 0 / NaN, log-odds (N,), a threshold of them or one an image (N,).

    An image whose label is NaN is in no metric: a part of the images is a case whose other labels are NaN. A threshold
    that is NaN leaves the metrics that need one undefined.
    """

    y: np.ndarray
    logit: np.ndarray
    threshold: float | np.ndarray = 0.0


COUNTS = 7  # columns of `sums` before the bins


def replicate(
    cases: Sequence[Case], patient: np.ndarray, draws: int, seed: int = 0, names: Sequence[str] = tuple(METRICS)
) -> np.ndarray:
    """Metrics of redrawn test parts, (C, len(names), B); NaN where undefined in a draw.

    Args:
        cases: on the same N images.
        patient: (N,) number of each image's patient, 0 .. P-1.
        draws: B, how often the patients are drawn anew.
        seed: of the draws, which depend on it, on P and on B alone.
        names: of `metrics.METRICS`, and `TRUE_CALIBRATION`.
    """
    patients = int(patient.max()) + 1
    by_patient = [sums(case, patient, patients) for case in cases]
    totals = np.concatenate(by_patient, axis=1)
    # A draw's gaps scatter about those found as these do about the truth: twice the variance.
    scatter = [np.sqrt(2) * _deviation(one) for one in by_patient]
    ranks = [_Ranking(case, patient) for case in cases] if set(names) & set(RANKED) else []
    found = np.full((len(cases), len(names), draws), np.nan)

    def fill(chunk: tuple[int, np.ndarray]) -> None:
        start, times = chunk
        at = slice(start, start + len(times))
        redrawn = (times.astype(np.float64) @ totals).reshape(len(times), len(cases), -1)
        for number in range(len(cases)):
            values = from_sums(redrawn[:, number])
            if ranks:
                values |= ranks[number].areas(times)
            if TRUE_CALIBRATION in names:
                values[TRUE_CALIBRATION] = _true_calibration(redrawn[:, number], scatter[number])
            for place, name in enumerate(names):
                found[number, place, at] = values[name]

    with ThreadPoolExecutor(hardware.cores()) as pool:
        for _ in pool.map(fill, multiplicities(patients, draws, seed)):
            pass
    return found


def multiplicities(patients: int, draws: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """How often each patient is in each draw, some draws at a time: the first draw's number and (draws, P) counts."""
    size = max(6, 16_000 // patients)
    for start in range(0, draws, size):
        rows = min(size, draws - start)
        drawn = np.random.default_rng([seed, start]).integers(patients, size=(rows, patients))
        drawn += patients * np.arange(rows)[:, None]
        yield start, np.bincount(drawn.ravel(), minlength=rows * patients).reshape(rows, patients).astype(np.int32)


def sums(case: Case, patient: np.ndarray, patients: int) -> np.ndarray:
    """By patient (P, K): true and false positives, true and false negatives, squared errors, log losses, bins."""
    known = ~np.isnan(case.y)
    y, logit, patient = case.y[known], case.logit[known].astype(np.float64), patient[known]
    threshold = case.threshold[known] if np.ndim(case.threshold) else case.threshold
    called, abnormal = logit > threshold, y == 1
    # A threshold that does not exist: counts that are no numbers, so that no metric can be made of them.
    count = np.where(np.isnan(threshold), np.nan, 1.0)
    by_image = [
        count * (called & abnormal), count * (called & ~abnormal), count * (~called & ~abnormal),
        count * (~called & abnormal), squared_error(y, logit), surprise(y, logit), np.ones(len(y)),
    ]  # fmt: skip
    columns = [np.bincount(patient, weights=np.broadcast_to(one, len(y)), minlength=patients) for one in by_image]
    bins, p = np.zeros((patients, BINS)), special.expit(logit)
    np.add.at(bins, (patient, calibration_bin(p)), p - y)
    return np.concatenate([np.stack(columns, axis=1), bins], axis=1)


def from_sums(total: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of RANKED's complement from sums over all images, (.., K) -> (..) each; NaN where undefined."""
    tp, fp, tn, fn, squares, surprises, images = np.moveaxis(total[..., :COUNTS], -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, specificity = tp / (tp + fn), tn / (tn + fp)
        return {
            "accuracy": (tp + tn) / (tp + fp + tn + fn),
            "precision": tp / (tp + fp),
            "recall": recall,
            "f1": 2 * tp / (2 * tp + fp + fn),
            "specificity": specificity,
            "balanced_accuracy": (recall + specificity) / 2,
            "mcc": (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)),
            "brier": squares / images,
            "log_loss": surprises / images,
            "calibration_error": np.abs(total[..., COUNTS:]).sum(-1) / images,
        }


def true_calibration(case: Case, patient: np.ndarray) -> float:
    """The calibration error less what chance adds to it, the patients being what varies."""
    by_patient = sums(case, patient, int(patient.max()) + 1)
    return float(_true_calibration(by_patient.sum(axis=0), _deviation(by_patient)))


def _true_calibration(total: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return without_chance(total[..., COUNTS:], deviation) / total[..., COUNTS - 1]


def _deviation(by_patient: np.ndarray) -> np.ndarray:
    """The standard deviation of each bin's gap, patients being drawn anew."""
    return by_patient[:, COUNTS:].std(axis=0) * np.sqrt(len(by_patient))


class _Ranking:
    """A case's images by falling log-odds; images of the same log-odds are a step, and steps without a hit are none.

    Counts are int32, whose running sums numpy makes five times as fast as those of int64.
    """

    def __init__(self, case: Case, patient: np.ndarray) -> None:
        known = np.flatnonzero(~np.isnan(case.y))
        order = known[np.argsort(-case.logit[known], kind="stable")]
        logit, abnormal = case.logit[order], case.y[order] == 1
        self.patient, self.hit = patient[order], patient[order[abnormal]]
        last = np.append(logit[1:] != logit[:-1], True)[: len(logit)]
        hits, seen = np.cumsum(abnormal)[last], np.flatnonzero(last) + 1
        stepped = np.diff(hits, prepend=0) > 0
        self.hits = hits[stepped]  # after each step, if every patient is drawn once
        self.seen, self.before = seen[stepped], np.append(0, seen)[:-1][stepped]

    def areas(self, times: np.ndarray) -> dict[str, np.ndarray]:
        """AUROC and average precision of some draws (b, P), each (b,)."""
        if not len(self.hits):
            return dict.fromkeys(RANKED, np.full(len(times), np.nan))
        seen, hits = _running(times, self.patient), _running(times, self.hit)
        all_images, abnormal = seen[:, -1].astype(np.float64), hits[:, -1].astype(np.float64)
        after, hits = seen[:, self.seen], hits[:, self.hits]
        found = np.diff(hits, axis=1, prepend=0).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.einsum("bn,bn->b", found, hits / np.maximum(after, 1)) / abnormal
            # Normal images that are ranked above a hit count whole, those of the same log-odds half.
            above = after + seen[:, self.before] - 2 * hits + found
            normal = all_images - abnormal
            area = 1 - np.einsum("bn,bn->b", found, above) / (2 * abnormal * normal)
        return {"auroc": area, "average_precision": precision}


def _running(times: np.ndarray, patient: np.ndarray) -> np.ndarray:
    """How many images are drawn up to each one, (b, N + 1), from 0."""
    total = np.zeros((len(times), len(patient) + 1), np.int32)
    np.take(times, patient, axis=1, out=total[:, 1:], mode="clip")
    return np.cumsum(total, axis=1, dtype=np.int32, out=total)
