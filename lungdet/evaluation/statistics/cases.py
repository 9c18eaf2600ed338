"""Cases: one label of a test part, and what every metric is made of: sums over its images, or its images ranked.

Legend: N images, P patients, K sums, (..) test parts, b of them at a time. All is float64.
"""

import math
import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

BINS = 15
"""Equal bins of probability, for the calibration error."""
NO_ABNORMAL = "no image is abnormal"
NO_NORMAL = "no image is normal"


class Undefined(float):
    """NaN with the reason why: a metric whose denominator is empty is not 0, and not silently NaN either."""

    reason: str

    def __new__(cls, reason: str) -> "Undefined":
        """A NaN that keeps its reason."""
        number = super().__new__(cls, "nan")
        number.reason = reason
        return number


def or_none(number: float) -> float | None:
    """A number as JSON has it: None where it is NaN."""
    return None if math.isnan(number) else float(number)


def mean_of_defined(numbers: ArrayLike, axis: int) -> np.ndarray:
    """The mean along an axis of what is a number; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(numbers, axis=axis)


class Case(NamedTuple):
    """What one metric is computed of: labels (N,) 1 / 0 / NaN, log-odds (N,), a threshold of them or one an image (N,).

    An image whose label is NaN is in no metric: a part of the images is a case whose other labels are NaN. An image is
    called abnormal where `logit > threshold`, strictly, as in torchmetrics: a probability of exactly 0.5 is called
    normal. A threshold that is NaN leaves the metrics that need one undefined.
    """

    y: np.ndarray
    logit: np.ndarray
    threshold: float | np.ndarray = 0.0

    @classmethod
    def of(cls, table: pd.DataFrame, label: str, threshold: float | np.ndarray = 0.0) -> "Case":
        """One label of a table of predictions."""
        return cls(table[f"target_{label}"].to_numpy(np.float64), table[f"logit_{label}"].to_numpy(), threshold)

    def sums(self, patient: np.ndarray, patients: int) -> np.ndarray:
        """By patient (P, K): what `Sums.of` takes the total of, `patient` (N,) being each image's, 0 .. P-1."""
        known = ~np.isnan(self.y)
        y, logit, patient = self.y[known], self.logit[known].astype(np.float64), patient[known]
        threshold = self.threshold[known] if np.ndim(self.threshold) else self.threshold
        called, abnormal, p = logit > threshold, y == 1, special.expit(logit)
        # A threshold that does not exist: counts that are no numbers, so that no metric can be made of them.
        count = np.where(np.isnan(threshold), np.nan, 1.0)
        by_image = [
            count * (called & abnormal), count * (called & ~abnormal), count * (~called & ~abnormal),
            count * (~called & abnormal), special.expit(np.where(abnormal, -logit, logit)) ** 2,
            np.logaddexp(0, np.where(abnormal, -logit, logit)), np.ones(len(y)),
        ]  # fmt: skip
        columns = [np.bincount(patient, weights=weight, minlength=patients) for weight in by_image]
        gaps = np.zeros((patients, BINS))
        np.add.at(gaps, (patient, calibration_bin(p)), p - y)
        return np.concatenate([np.stack(columns, axis=1), gaps], axis=1)

    def total(self) -> "Sums":
        """Over all images, as they are."""
        return Sums.of(self.sums(np.zeros(len(self.y), np.int64), 1)[0])


class Sums(NamedTuple):
    """Sums over the images of test parts, (..) each."""

    tp: np.ndarray
    """Called abnormal, rightly."""
    fp: np.ndarray
    tn: np.ndarray
    fn: np.ndarray
    squares: np.ndarray
    """Of the distance between probability and label."""
    surprises: np.ndarray
    """Negative log-likelihoods, in nats."""
    images: np.ndarray
    gaps: np.ndarray
    """(.., BINS), probability minus label."""
    scatter: np.ndarray | float
    """(BINS,), how far chance takes each of these from the truth, as a standard deviation; NaN where nobody asks."""

    @classmethod
    def of(cls, total: np.ndarray, scatter: np.ndarray | float = np.nan) -> "Sums":
        """From `Case.sums` (.., K), added up over patients."""
        return cls(*np.moveaxis(total[..., :-BINS], -1, 0), total[..., -BINS:], scatter)


class Steps(NamedTuple):
    """The images of some test parts by falling log-odds (b, steps); steps of one log-odds each that have a hit.

    A hit is an abnormal image.
    """

    hits: np.ndarray
    """In this step."""
    hits_so_far: np.ndarray
    images_before: np.ndarray
    images_so_far: np.ndarray
    abnormal: np.ndarray
    """(b,)"""
    images: np.ndarray
    """(b,)"""


class Ranking:
    """A case's images by falling log-odds.

    Counts are int32, whose running sums numpy makes five times as fast as those of int64.
    """

    def __init__(self, case: Case, patient: np.ndarray) -> None:
        known = np.flatnonzero(~np.isnan(case.y))
        order = known[np.argsort(-case.logit[known], kind="stable")]
        logit, abnormal = case.logit[order], case.y[order] == 1
        self._patient, self._hit = patient[order], patient[order[abnormal]]
        last = np.append(logit[1:] != logit[:-1], True)[: len(logit)]
        hits, images = np.cumsum(abnormal)[last], np.flatnonzero(last) + 1
        stepped = np.diff(hits, prepend=0) > 0
        self._hits = hits[stepped]  # after each step, if every patient is drawn once
        self._images, self._before = images[stepped], np.append(0, images)[:-1][stepped]

    def steps(self, times: np.ndarray) -> Steps:
        """Of test parts that hold each patient so many times, (b, P)."""
        images, hits = _running(times, self._patient), _running(times, self._hit)
        so_far = hits[:, self._hits]
        return Steps(
            np.diff(so_far, axis=1, prepend=0).astype(np.float64),
            so_far,
            images[:, self._before],
            images[:, self._images],
            hits[:, -1].astype(np.float64),
            images[:, -1].astype(np.float64),
        )


def known(y: ArrayLike, logit: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels and log-odds as float64, without the images whose label is NaN.

    Raises:
        ValueError: lengths differ, a label is not 0, 1 or NaN, or log-odds are NaN or infinite.
    """
    y, logit = np.asarray(y, np.float64), np.asarray(logit, np.float64)
    if y.shape != logit.shape or y.ndim != 1:
        raise ValueError(f"labels and log-odds must be two lists of one length, not {y.shape} and {logit.shape}")
    wrong = ~(np.isin(y, (0, 1)) | np.isnan(y))
    if wrong.any():
        raise ValueError(f"{int(wrong.sum())} label(s) are not 0, 1 or NaN, the first is {y[wrong][0]}")
    wrong = ~np.isfinite(logit)
    if wrong.any():
        raise ValueError(f"{int(wrong.sum())} log-odds are NaN or infinite, the first is {logit[wrong][0]}")
    labelled = ~np.isnan(y)
    return y[labelled], logit[labelled]


def deviation(by_patient: np.ndarray) -> np.ndarray:
    """The standard deviation (BINS,) of each bin's gap, patients being drawn anew, of `Case.sums` (P, K)."""
    return by_patient[:, -BINS:].std(axis=0) * np.sqrt(len(by_patient))


def calibration_bin(p: np.ndarray) -> np.ndarray:
    """Which of the equal bins of [0, 1] a probability is in, (N,) from 0; 1 is in the last one."""
    return np.minimum((p * BINS).astype(np.int64), BINS - 1)


def _running(times: np.ndarray, patient: np.ndarray) -> np.ndarray:
    """How many images are drawn up to each one, (b, N + 1), from 0."""
    total = np.zeros((len(times), len(patient) + 1), np.int32)
    np.take(times, patient, axis=1, out=total[:, 1:], mode="clip")
    return np.cumsum(total, axis=1, dtype=np.int32, out=total)
