"""Arithmetic of estimates: their mean and their difference, seed by seed and draw by draw."""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from lungdet.evaluation.statistics.cases import Undefined, mean_of_defined
from lungdet.evaluation.statistics.intervals import Estimate
from lungdet.evaluation.statistics.scales import of_differences


def mean(estimates: Sequence[Estimate], over_defined: bool = False) -> Estimate:
    """Over findings, sources or levels. Under a seed that leaves one of them undefined so is the mean.

    Args:
        estimates: of the same seeds and draws.
        over_defined: in a draw the mean is over those that it defines; otherwise it is undefined with one of them.
    """
    values = []
    for column in zip(*[estimate.values for estimate in estimates], strict=True):
        missing = [value for value in column if math.isnan(value)]
        values.append(missing[0] if missing else fmean(column))
    draws = (mean_of_defined if over_defined else np.mean)([estimate.draws for estimate in estimates], axis=0)
    patients, supporting = (
        min(getattr(estimate, field) for estimate in estimates) for field in ("patients", "supporting")
    )
    return estimates[0]._replace(values=values, draws=draws, patients=patients, supporting=supporting)


def minus(minuend: Estimate, subtrahend: Estimate, sides: tuple[str, str] = ("", "")) -> Estimate:
    """Their difference; where either is undefined, the reason and which of the `sides` it was."""
    values = []
    for pair in zip(minuend.values, subtrahend.values, strict=True):
        missing = [
            f"{side} {getattr(value, 'reason', 'NaN')}".lstrip()
            for side, value in zip(sides, pair, strict=True)
            if math.isnan(value)
        ]
        values.append(Undefined(missing[0]) if missing else pair[0] - pair[1])
    return Estimate(
        values,
        minuend.draws - subtrahend.draws,
        min(minuend.patients, subtrahend.patients),
        min(minuend.supporting, subtrahend.supporting),
        of_differences(minuend.scale),
    )


def turned(estimate: Estimate, by: int) -> Estimate:
    """The same with its draws in another order, which makes them independent of another estimate's.

    Draws depend on the number of patients alone: images of as many other patients are drawn alike.
    """
    return estimate._replace(draws=np.roll(estimate.draws, by, axis=1))
