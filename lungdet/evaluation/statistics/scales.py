"""Scales: on which an interval is symmetric, and the ends of the range that it lies in."""

import math
from collections.abc import Callable
from typing import NamedTuple


class Scale(NamedTuple):
    """To the scale, back, how steep it is, and the least and the largest number that it is for."""

    to: Callable[[float], float]
    back: Callable[[float], float]
    slope: Callable[[float], float]
    low: float
    high: float


SHARE = Scale(
    lambda x: math.log(x / (1 - x)) if 0 < x < 1 else math.inf,
    lambda z: 1 / (1 + math.exp(-z)),
    lambda x: 1 / (x * (1 - x)),
    0.0,
    1.0,
)
CORRELATION = Scale(lambda x: math.atanh(x) if abs(x) < 1 else math.inf, math.tanh, lambda x: 1 / (1 - x**2), -1.0, 1.0)
LOSS = Scale(lambda x: math.log(x) if x > 0 else -math.inf, math.exp, lambda x: 1 / x, 0.0, math.inf)
CLIPPED = Scale(lambda x: x, lambda x: min(max(x, 0.0), 1.0), lambda x: 1.0, 0.0, 1.0)
"""From 0 to 1, and no share of anything."""


def of_differences(scale: Scale) -> Scale:
    """Of differences between two numbers of a scale, none of which is larger than its range."""
    reach = scale.high - scale.low
    return Scale(lambda x: x, lambda x: min(max(x, -reach), reach), lambda x: 1.0, -reach, reach)
