"""How often 95 % intervals of one model's metrics hold the truth, in per cent of studies."""

import functools

import numpy as np

from lungdet.evaluation.statistics import metrics
from lungdet.evaluation.statistics.intervals import interval
from lungdet.evaluation.statistics.measure import estimated
from tests.simulated import cohort, one_model, table

DRAWS = 1000
POPULATION = 400_000
"""Patients whose metrics count as the truth."""


def designs() -> list[dict]:
    """Few patients and more; a model that is calibrated, and one that is too sure and too high."""
    return [
        {"patients": patients, **model}
        for patients in (300, 40)
        for model in (
            {"skill": 1.2, "too_high": 0.0, "too_sure": 1.0},
            {"skill": 1.2, "too_high": 0.7, "too_sure": 1.5},
        )
    ]


def study(design: dict, seed: int) -> dict[str, bool]:
    """Whether each metric's interval holds the truth, in one study."""
    model = {key: value for key, value in design.items() if key != "patients"}
    found = estimated([_table(design["patients"], [1, seed], **model)], ("abnormal",), DRAWS)
    true = truth(**model)
    return {name: interval(one)[0] <= true[name] <= interval(one)[1] for name, one in found.items()}


def found(design: dict, rows: list[dict[str, bool]]) -> dict:
    """The share of studies by metric."""
    return {**design, **{name: float(100 * np.mean([row[name] for row in rows])) for name in rows[0]}}


@functools.cache
def truth(**model: float) -> dict[str, float]:
    """The metrics of a very large study."""
    population = _table(POPULATION, [2], **model)
    return metrics.scores(population["target_abnormal"], population["logit_abnormal"])


def _table(patients: int, seed: list[int], **model: float):
    generator = np.random.default_rng(seed)
    y, patient = cohort(generator, patients)
    return table(y, one_model(generator, y, patient, **model), patient)
