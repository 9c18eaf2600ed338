"""Calibration: whether a probability means what it says, how much of the error is chance, and temperature scaling."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from lungdet.evaluation.statistics.cases import BINS, Undefined, calibration_bin, known


def without_chance(gaps: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """The size of the bins' true gaps, where those found scatter about them: summed over bins, (.., BINS) -> (..).

    A bin's gap (sum of probability minus label) is taken as normal about the true one with this standard deviation;
    its size is then larger on average, and this undoes it: the true size whose mean found size is the one found, 0
    where chance alone gives more. Without it the calibration error of 300 patients is too large by a tenth and its
    interval holds the truth in 72 of 100 studies.
    """
    size = np.abs(gaps)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(deviation > 0, size / deviation, np.inf)
    true = np.interp(ratio, _FOUND, _TRUE) * deviation
    return np.where(ratio > _FOUND[-1], size, true).sum(-1)


def temperature(y: ArrayLike, logit: ArrayLike) -> float:
    """What logits are to be divided by so that the log loss on validation is least (Guo et al. 2017, 1706.04599).

    Above 1 the model was too sure of itself. Undefined where only one class is there: any probability could be pushed
    to that class.

    Args:
        y: (N,) validation labels 1 / 0 / NaN.
        logit: (N,) log-odds.
    """
    y, logit = np.asarray(y, np.float64), np.asarray(logit, np.float64)
    y, logit = y[~np.isnan(y)], logit[~np.isnan(y)]
    if len(np.unique(y)) < 2:
        return Undefined("validation holds one class only")

    def loss(log_t: float) -> float:
        return float(np.mean(np.logaddexp(0, np.where(y == 1, -logit, logit) / np.exp(log_t))))

    return float(np.exp(optimize.minimize_scalar(loss, bounds=np.log(RANGE), method="bounded").x))


def reliability(y: ArrayLike, logit: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each bin of the calibration error: mean probability, share of abnormal images, images; NaN where empty."""
    y, logit = known(y, logit)
    p = special.expit(logit)
    place = calibration_bin(p)
    count = np.bincount(place, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return *(np.bincount(place, weights=weight, minlength=BINS) / count for weight in (p, y)), count


def share_interval(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of shares of so many cases each, also where all or none are; NaN of no case."""
    z = special.ndtri(0.975)
    with np.errstate(divide="ignore", invalid="ignore"):
        middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
        reach = z * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / (1 + z**2 / count)
    return np.clip(middle - reach, 0, share), np.clip(middle + reach, share, 1)


RANGE = (0.05, 20.0)
"""Where a temperature is looked for."""
_TRUE = np.linspace(0, 8, 4001)
_FOUND = np.sqrt(2 / np.pi) * np.exp(-(_TRUE**2) / 2) + _TRUE * (1 - 2 * special.ndtr(-_TRUE))
"""The mean size of a normal variable of deviation 1 about each true value."""
