"""How often a difference between two models is claimed, in per cent of studies of 300 patients.

Without a difference (`worth` 0) this is how often the claim is false. A difference that is worth 80 % power is one that
a t-test would find in 80 % of studies, if it knew the variance of the mean difference and had the degrees of freedom
that the true variances of patients and seeds give.
"""

import math

import numpy as np
import pandas as pd
from scipy import optimize, stats

from lungdet.evaluation.statistics import metrics
from lungdet.evaluation.statistics.intervals import difference, holm
from lungdet.evaluation.statistics.measure import estimated
from lungdet.evaluation.statistics.metrics import STUDY
from tests.simulated import cohort, several_seeds, table

PATIENTS, SKILL, DRAWS = 300, 1.2, 500
LIKE_THE_TEST, TWICE = 0.08, 0.16
"""Spread of the skill over seeds, with which accuracy spreads over seeds about once and twice its error of patients."""


def designs() -> list[dict]:
    """3 and 5 seeds that differ not at all, about as much as test parts do, and twice as much."""
    return [
        {"seeds": seeds, "spread": spread, "worth": worth, "more": _more_skill(seeds, spread) if worth else 0.0}
        for seeds in (3, 5)
        for spread in (0.0, LIKE_THE_TEST, TWICE)
        for worth in (0, 80)
    ]


def study(design: dict, seed: int) -> dict[str, float]:
    """Each metric's p-value, and the least of them adjusted, in one study."""
    first, second = (estimated(some, ("abnormal",), DRAWS, STUDY) for some in _models(design, [3, seed]))
    alone = {name: difference(first[name], second[name]).p for name in STUDY}
    return {**alone, "family": min(holm(list(alone.values())))}


def found(design: dict, rows: list[dict[str, float]]) -> dict:
    """Claims at 0.05 by metric, each by itself; and of any metric of the family, adjusted."""
    said = {key: value for key, value in design.items() if key != "more"}
    return {**said, **{name: float(100 * np.mean([row[name] < 0.05 for row in rows])) for name in rows[0]}}


def _models(design: dict, seed: list[int]) -> list[list[pd.DataFrame]]:
    generator = np.random.default_rng(seed)
    y, patient = cohort(generator, PATIENTS)
    return [
        [
            table(y, logit, patient)
            for logit in several_seeds(generator, y, patient, design["seeds"], skill, design["spread"])
        ]
        for skill in (SKILL, SKILL + design["more"])
    ]


def _more_skill(seeds: int, spread: float) -> float:
    """How much more skill is worth 80 % power in accuracy, found in studies of other patients and seeds."""
    more = 0.3
    for _ in range(4):  # the variance falls with skill, and so does what a little more of it gains
        gaps = _gaps({"seeds": seeds, "spread": spread, "more": more})
        total = np.var(gaps, ddof=1)
        alike = _gaps({"seeds": seeds, "spread": 0.0, "more": more}) if spread else gaps
        by_seeds = max(0.0, total - np.var(alike, ddof=1))
        parts = [(total - by_seeds, PATIENTS - 1), (by_seeds / 2, seeds - 1), (by_seeds / 2, seeds - 1)]
        freedom = total**2 / sum(part**2 / one for part, one in parts)
        limit = stats.t.ppf(0.975, freedom)
        worth = optimize.brentq(lambda d, at=limit, of=freedom: stats.nct.sf(at, of, d) - 0.8, 1, 10)
        more *= worth * math.sqrt(total) / np.mean(gaps)
    return more


def _gaps(design: dict, studies: int = 2000) -> list[float]:
    """Mean differences in accuracy."""
    return [
        float(np.subtract(*[np.mean([_accuracy(one) for one in some]) for some in _models(design, [4, seed])[::-1]]))
        for seed in range(studies)
    ]


def _accuracy(one: pd.DataFrame) -> float:
    return metrics.accuracy(one["target_abnormal"], one["logit_abnormal"])
