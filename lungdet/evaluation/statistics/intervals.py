"""Intervals and differences: what the choice of test patients and of seeds leaves open, in numbers.

A metric's variance has two parts. Test patients: the variance of bootstrap draws of the mean over seeds. Seeds: their
sample variance divided by their number, less what of it is the patients' doing already (each seed errs on patients of
its own; the draws show how much), as in an analysis of variance. The interval is Student's, its degrees of freedom
Satterthwaite's, so that three seeds are trusted as far as three seeds go: resampling seeds as if they were patients
claims differences that are none in 9 to 15 % of studies. Below `SEEDS_NEEDED` seeds their spread is unknown, and the
interval covers the choice of patients alone.

Intervals of a share are computed on the logit scale, where it is nearer to normal. `make drills` measures all this.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from lungdet.evaluation.statistics.cases import Undefined
from lungdet.evaluation.statistics.scales import SHARE, Scale, of_differences

SEEDS_NEEDED = 3
"""With fewer, the spread over seeds cannot be told from a difference between models."""
LEVEL = 0.95
NOTHING = 1e-20
"""A variance that is but rounding, and an interval's `ROUNDING` on its scale."""
ROUNDING = 1e-10
MOST_UNDEFINED = 0.05
"""No interval is given where a metric is undefined in a larger share of the draws."""


class Estimate(NamedTuple):
    """A metric of a model: its value under each of S seeds, and in redrawn test parts (S, B).

    `patients` were drawn from; `supporting` are those of them on whose images the metric rests (the abnormal ones for
    recall). Its interval is symmetric on `scale`, about `centre` if not about the mean over seeds. `fixed` is a system
    that is one and the same, whatever the seed: no spread over seeds is missing.
    """

    values: Sequence[float]
    draws: np.ndarray
    patients: int
    supporting: int
    scale: Scale = SHARE
    centre: float | None = None
    fixed: bool = False


class Variance(NamedTuple):
    """The variance of a mean over seeds: from test patients, from seeds (0 where unknown), and degrees of freedom."""

    patients: float
    seeds: float
    freedom: float


class Difference(NamedTuple):
    """How much larger a metric of the second model is than of the first, its 95 % interval and two-sided p-value."""

    value: float
    low: float
    high: float
    p: float


def interval(estimate: Estimate) -> tuple[float, float]:
    """The 95 % interval of a metric's mean over seeds; both ends `Undefined` where there is none.

    A share of 1 (or 0) is 1 in every draw as well. Its interval is the exact binomial's, of as many cases as there are
    patients it rests on: no mistake on 20 patients does not rule out 15 % of mistakes.
    """
    if reason := _no_interval(estimate):
        return Undefined(reason), Undefined(reason)
    value, scale = float(np.mean(estimate.values)), estimate.scale
    if not math.isfinite(scale.to(value)):
        return _at_an_end(estimate, value)
    centre = value if estimate.centre is None else estimate.centre
    patients, seeds, freedom = variance(estimate)
    margin = quantile((1 + LEVEL) / 2, freedom) * math.sqrt(patients + seeds) * scale.slope(centre)
    if margin < ROUNDING:  # 0.5 in every draw, say: were it certain, two patients could show anything
        undefined = Undefined("it is the same in every redrawn part, which then says nothing about others")
        return undefined, undefined
    return scale.back(scale.to(centre) - margin), scale.back(scale.to(centre) + margin)


def difference(first: Estimate, second: Estimate) -> Difference:
    """Second minus first on the same draws; undefined ends and p where one has no interval.

    Seeds are independent between models: the second model's seed 0 shares nothing with the first's but the order of
    the images. Of equally many seeds the models' spreads are pooled, as in Student's test. Told apart, as in Welch's,
    three seeds of each would find 69 to 74 of 100 differences worth 80 % power instead of 76; the price is that where
    one model's seeds spread twice as far as the other's, 6 to 7 instead of 5 to 6 of 100 claims are false. Beside a
    fixed system the other model's seeds alone count.
    """
    value = float(np.mean(second.values) - np.mean(first.values))
    if reason := _no_interval(first) or _no_interval(second):
        undefined = Undefined(reason)
        return Difference(value, undefined, undefined, undefined)
    drawn = second.draws.mean(axis=0) - first.draws.mean(axis=0)
    patients = _of_patients(drawn, first.patients)
    parts = [(patients, first.patients - 1)]
    seeded = [model for model in (first, second) if not model.fixed]
    if counts_seeds(seeded):
        if len(seeded) == 2 and len(first.values) == len(second.values):
            parts.append((2 * _of_seeds(first, second), 2 * (len(first.values) - 1)))
        else:
            parts += [(_of_seeds(model), len(model.values) - 1) for model in seeded]
    total, freedom = _satterthwaite(parts)
    if total < NOTHING:
        if abs(value) < 1e-12:
            return Difference(value, value, value, 1.0)
        # Were it certain, two patients could show anything.
        undefined = Undefined("the difference is the same in every redrawn part, which then says nothing about it")
        return Difference(value, undefined, undefined, undefined)
    error = math.sqrt(total)
    margin, scale = quantile((1 + LEVEL) / 2, freedom) * error, of_differences(first.scale)
    return Difference(value, scale.back(value - margin), scale.back(value + margin), _two_sided(value / error, freedom))


def counts_seeds(estimates: Iterable[Estimate]) -> bool:
    """Whether what is said of these counts the spread over seeds, as far as there is one."""
    return all(estimate.fixed or len(estimate.values) >= SEEDS_NEEDED for estimate in estimates)


def p_value(estimate: Estimate) -> float:
    """Two-sided p of a mean over seeds that is 0, for what is a difference already; undefined where no interval is."""
    if reason := _no_interval(estimate):
        return Undefined(reason)
    value, (patients, seeds, freedom) = float(np.mean(estimate.values)), variance(estimate)
    if patients + seeds < NOTHING:
        return 1.0 if abs(value) < 1e-12 else Undefined("it is the same in every redrawn part")
    return _two_sided(value / math.sqrt(patients + seeds), freedom)


def variance(estimate: Estimate) -> Variance:
    """Of the mean over seeds."""
    patients = _of_patients(estimate.draws.mean(axis=0), estimate.patients)
    parts = [(patients, estimate.patients - 1)]
    if len(estimate.values) >= SEEDS_NEEDED:
        parts.append((_of_seeds(estimate), len(estimate.values) - 1))
    return Variance(patients, sum(part for part, _ in parts[1:]), _satterthwaite(parts)[1])


def quantile(share: float, freedom: float) -> float:
    """Student's t below which this share of its distribution lies.

    From `scipy.special`: `scipy.stats` takes longer to import than a small report to write, and a hundred times as long
    a call.
    """
    return float(special.stdtrit(freedom, share))


def holm(p: list[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979); what is NaN stays so and does not count."""
    adjusted, least, order = list(p), 0.0, [i for i in np.argsort(p) if not math.isnan(p[i])]
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p[i]))
        adjusted[i] = least
    return adjusted


def _two_sided(t: float, freedom: float) -> float:
    """The p-value of a Student's t."""
    return float(2 * special.stdtr(freedom, -abs(t)))


def _of_patients(drawn: np.ndarray, patients: int) -> float:
    """The variance of draws of P patients, which is (P - 1) / P of the truth's on average."""
    return float(np.nanvar(drawn, ddof=1) * patients / (patients - 1))


def _of_seeds(*estimates: Estimate) -> float:
    """What seeds add to the variance of their mean, mean over models: their spread less that which patients cause."""
    variances = []
    for estimate in estimates:
        spread = float(np.var(estimate.values, ddof=1))
        # In a draw the seeds differ by what they always differ by and, twice over, by chance of the patients.
        by_chance = float(np.nanmean(np.var(estimate.draws, axis=0, ddof=1))) - spread
        variances.append((spread - max(0.0, by_chance)) / len(estimate.values))
    return max(0.0, float(np.mean(variances)))


def _satterthwaite(parts: list[tuple[float, int]]) -> tuple[float, float]:
    """The sum of independent variances and its approximate degrees of freedom (Satterthwaite 1946)."""
    total = sum(part for part, _ in parts)
    if total == 0:
        return 0.0, parts[0][1]
    return total, 1 / sum((part / total) ** 2 / freedom for part, freedom in parts)  # squares alone may vanish


def _at_an_end(estimate: Estimate, value: float) -> tuple[float, float]:
    """The interval of a number at an end of its scale."""
    scale = estimate.scale
    if math.isinf(scale.high):
        undefined = Undefined("no image costs anything, and nothing says how much others would")
        return undefined, undefined
    exact = ((1 - LEVEL) / 2) ** (1 / estimate.supporting)
    inner = scale.low + exact * (scale.high - scale.low)
    return (inner, scale.high) if value > 0 else (scale.low, scale.low + scale.high - inner)


def _no_interval(estimate: Estimate) -> str | None:
    """Why there is no interval, or None."""
    missing = [value for value in estimate.values if math.isnan(value)]
    if missing:
        return getattr(missing[0], "reason", "the metric is undefined")
    if estimate.patients < 2:
        return "a single patient: nothing says how others would differ"
    undefined = float(np.isnan(estimate.draws.mean(axis=0)).mean())
    if undefined > MOST_UNDEFINED:
        return (
            f"undefined in {100 * undefined:.0f} % of redrawn parts: it rests on {estimate.supporting} of "
            f"{estimate.patients} patients"
        )
    return None
