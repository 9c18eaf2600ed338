"""Metrics: pure functions of labels and log-odds, one number each, and a NaN that says why where undefined.

y (N,) labels 1 / 0 / NaN, logit (N,) log-odds of 1, p = 1 / (1 + exp(-logit)). Probabilities near 1 tie, in float32
from log-odds of 17 on, and have lost how sure a model was; log-odds have not. An image whose label is NaN (unknown) is
left out, here and nowhere else. An image is called abnormal where `logit > threshold`, strictly, as in torchmetrics: a
probability of exactly 0.5 is called normal. The threshold is the log-odds of the probability that reports name, 0 of
0.5: one number, or (N,) where images of several runs are pooled, each judged at its own run's. All is float64.
"""

import functools
import inspect
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

METRICS: dict[str, Callable[..., float]] = {}
"""Every metric by name; `@metric` puts a function here, and reports pick from it by name."""


class Undefined(float):
    """NaN with the reason why: a metric whose denominator is empty is not 0, and not silently NaN either."""

    reason: str

    def __new__(cls, reason: str) -> "Undefined":
        """A NaN that keeps its reason."""
        number = super().__new__(cls, "nan")
        number.reason = reason
        return number


class Confusion(NamedTuple):
    """Numbers of images: called abnormal rightly and wrongly, called normal rightly and wrongly."""

    tp: int
    fp: int
    tn: int
    fn: int


def log_odds(p: ArrayLike) -> np.ndarray:
    """Log-odds of probabilities; 0 and 1, which have none, are taken as float64's eps and 1 - eps: 36 nats away."""
    eps = np.finfo(np.float64).eps
    return special.logit(np.clip(np.asarray(p, np.float64), eps, 1 - eps))


def ensemble(logit: np.ndarray) -> np.ndarray:
    """Log-odds (N,) of the mean of several models' probabilities, given as log-odds (models, N)."""
    yes, no = (special.logsumexp(special.log_expit(sign * np.asarray(logit, np.float64)), axis=0) for sign in (1, -1))
    return yes - no


def scores(
    y: ArrayLike, logit: ArrayLike, threshold: ArrayLike = 0.0, names: Iterable[str] | None = None
) -> dict[str, float]:
    """Several metrics at once: all of `METRICS`, or those named."""
    return {name: METRICS[name](y, logit, threshold) for name in (METRICS if names is None else names)}


def metric(function: Callable[..., float]) -> Callable[..., float]:
    """Enters a function of (y, logit) or (y, logit, threshold) in `METRICS`, with unknown labels taken out before.

    The result is called with (y, logit, threshold=0) whether it needs a threshold or not. It returns `Undefined` where
    no label is known, or where a threshold is needed and is NaN (none could be chosen).
    """
    thresholded = "threshold" in inspect.signature(function).parameters

    @functools.wraps(function)
    def masked(y: ArrayLike, logit: ArrayLike, threshold: ArrayLike = 0.0) -> float:
        if np.ndim(threshold):
            threshold = np.asarray(threshold, np.float64)[~np.isnan(np.asarray(y, np.float64))]
        y, logit = known(y, logit)
        if not len(y):
            return Undefined("no image has a known label")
        if not thresholded:
            return function(y, logit)
        if np.isnan(threshold).any():
            return Undefined(f"there is no threshold: {getattr(threshold, 'reason', 'it is NaN')}")
        return function(y, logit, threshold)

    METRICS[function.__name__] = masked
    return masked


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


def confusion(y: np.ndarray, logit: np.ndarray, threshold: float | np.ndarray) -> Confusion:
    """Counts at a threshold, or at each image's own (N,), of labels that are all known."""
    called, abnormal = logit > threshold, y == 1
    tp, fp = int(np.sum(called & abnormal)), int(np.sum(called & ~abnormal))
    return Confusion(tp, fp, int(np.sum(~abnormal)) - fp, int(np.sum(abnormal)) - tp)


@metric
def accuracy(y: np.ndarray, logit: np.ndarray, threshold: float | np.ndarray) -> float:
    """Share of images called rightly."""
    count = confusion(y, logit, threshold)
    return (count.tp + count.tn) / len(y)


@metric
def precision(y: np.ndarray, logit: np.ndarray, threshold: float | np.ndarray) -> float:
    """Share of the images called abnormal that are; undefined where none is called so."""
    count = confusion(y, logit, threshold)
    return _ratio(count.tp, count.tp + count.fp, "no image is called abnormal")


@metric
def recall(y: np.ndarray, logit: np.ndarray, threshold: float | np.ndarray) -> float:
    """Share of the abnormal images that are called so (sensitivity)."""
    count = confusion(y, logit, threshold)
    return _ratio(count.tp, count.tp + count.fn, NO_ABNORMAL)


@metric
def f1(y: np.ndarray, logit: np.ndarray, threshold: float | np.ndarray) -> float:
    """Harmonic mean of precision and recall, as 2 tp / (2 tp + fp + fn)."""
    count = confusion(y, logit, threshold)
    return _ratio(2 * count.tp, 2 * count.tp + count.fp + count.fn, "no image is abnormal and none is called so")


@metric
def specificity(y: np.ndarray, logit: np.ndarray, threshold: float | np.ndarray) -> float:
    """Share of the normal images that are called so."""
    count = confusion(y, logit, threshold)
    return _ratio(count.tn, count.tn + count.fp, NO_NORMAL)


@metric
def balanced_accuracy(y: np.ndarray, logit: np.ndarray, threshold: float | np.ndarray) -> float:
    """Mean of recall and specificity; .5 for a constant answer, whatever the share of abnormal images."""
    count = confusion(y, logit, threshold)
    return _one_class(y) or (count.tp / (count.tp + count.fn) + count.tn / (count.tn + count.fp)) / 2


@metric
def mcc(y: np.ndarray, logit: np.ndarray, threshold: float | np.ndarray) -> float:
    """Matthews' correlation of call and label: 0 is chance, 1 perfect; undefined where either never varies."""
    count = confusion(y, logit, threshold)
    called, normal = count.tp + count.fp, count.tn + count.fp
    if undefined := _one_class(y):
        return undefined
    if called in (0, len(y)):
        return Undefined(f"{'every' if called else 'no'} image is called abnormal")
    product = called * (len(y) - called) * normal * (len(y) - normal)
    return (count.tp * count.tn - count.fp * count.fn) / math.sqrt(product)


@metric
def auroc(y: np.ndarray, logit: np.ndarray) -> float:
    """Chance that an abnormal image gets higher log-odds than a normal one, ties counting half."""
    if undefined := _one_class(y):
        return undefined
    _, value, count = np.unique(logit, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[value]  # equal log-odds share the middle of their ranks
    abnormal = np.sum(y == 1)
    normal = len(y) - abnormal
    return float((rank[y == 1].sum() - abnormal * (abnormal + 1) / 2) / (abnormal * normal))


@metric
def average_precision(y: np.ndarray, logit: np.ndarray) -> float:
    """Precision averaged over the steps in recall, without interpolation; the share of abnormal images is chance."""
    if not np.any(y == 1):
        return Undefined(NO_ABNORMAL)
    _, value, count = np.unique(logit, return_inverse=True, return_counts=True)
    hits = np.bincount(value, weights=y)[::-1]
    return float(np.sum(hits * np.cumsum(hits) / np.cumsum(count[::-1])) / y.sum())


@metric
def brier(y: np.ndarray, logit: np.ndarray) -> float:
    """Mean squared distance of the probability from the label: 0 is perfect, .25 a constant .5."""
    return float(np.mean(squared_error(y, logit)))


@metric
def log_loss(y: np.ndarray, logit: np.ndarray) -> float:
    """Mean negative log-likelihood in nats."""
    return float(np.mean(surprise(y, logit)))


@metric
def calibration_error(y: np.ndarray, logit: np.ndarray) -> float:
    """Expected calibration error: how far the share of abnormal images lies from what was said, over 15 equal bins.

    Each bin of probability counts by its images. The number of a perfect model is not 0 on few images, and falls with
    their number (Guo et al. 2017, arXiv 1706.04599).
    """
    p = special.expit(logit)
    return float(np.abs(np.bincount(calibration_bin(p), weights=p - y)).sum() / len(y))


def squared_error(y: np.ndarray, logit: np.ndarray) -> np.ndarray:
    """Each image's squared distance of the probability from the label, (N,)."""
    return special.expit(np.where(y == 1, -logit, logit)) ** 2


def surprise(y: np.ndarray, logit: np.ndarray) -> np.ndarray:
    """Each image's negative log-likelihood in nats, (N,)."""
    return np.logaddexp(0, np.where(y == 1, -logit, logit))


def calibration_bin(p: np.ndarray) -> np.ndarray:
    """Which of the equal bins of [0, 1] a probability is in, (N,) from 0; 1 is in the last one."""
    return np.minimum((p * BINS).astype(np.int64), BINS - 1)


def roc_curve(y: ArrayLike, logit: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """False-positive rate and recall at all distinct log-odds, from (0, 0) to (1, 1); NaN for a missing class."""
    y, logit = known(y, logit)
    _, value, count = np.unique(logit, return_inverse=True, return_counts=True)
    hits = np.bincount(value, weights=y, minlength=len(count))[::-1]
    misses = count[::-1] - hits
    rates = [np.append(0, np.cumsum(part)) / (part.sum() or np.nan) for part in (misses, hits)]
    return rates[0], rates[1]


BINS = 15
NO_ABNORMAL = "no image is abnormal"
NO_NORMAL = "no image is normal"


def _one_class(y: np.ndarray) -> Undefined | None:
    """The reason why a metric that needs both classes is undefined, or None where both are there."""
    if np.any(y == 1) and np.any(y == 0):
        return None
    return Undefined(NO_NORMAL if np.any(y == 1) else NO_ABNORMAL)


def _ratio(part: int, whole: int, reason: str) -> float:
    return part / whole if whole else Undefined(reason)
