"""What turns a run's log-odds into decisions and calibrated probabilities: both from its validation predictions."""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import logit

from lungdet.errors import InputError, RunError
from lungdet.evaluation.statistics import thresholds
from lungdet.evaluation.statistics.calibration import temperature
from lungdet.evaluation.statistics.cases import Undefined
from lungdet.evaluation.statistics.metrics import ensemble
from lungdet.evaluation.statistics.thresholds import USUAL, Threshold
from lungdet.runs.folder import Run
from lungdet.runs.predictions import check

log = logging.getLogger(__name__)

APART = "the runs were validated on different images"
"""Why the mean of several runs may have neither threshold nor temperature."""


def validation(runs: Sequence[Run], labels: Sequence[str]) -> pd.DataFrame | None:
    """Validation predictions, of several runs their mean; None where they were not validated on the same images.

    Raises:
        RunError: a run has none, or they are damaged.
    """
    tables = [check(run.predictions("val"), labels, f"run {run.folder}, val predictions") for run in runs]
    first = tables[0]
    if len(tables) == 1:
        return first
    if any(table["image_id"].tolist() != first["image_id"].tolist() for table in tables):
        return None
    names = [f"logit_{label}" for label in labels]
    return first.assign(**{name: ensemble(np.stack([table[name] for table in tables])) for name in names})


def cuts(
    runs: Sequence[Run], labels: Sequence[str], val: pd.DataFrame | None, at: float | None
) -> dict[str, Threshold]:
    """Each label's threshold: `at`, a probability, where it is given; else as the run has it stored.

    Where nothing is stored yet, and for the mean of several runs, it is chosen on validation as `evaluate.py` does, by
    the rule that all of them have stored or else `thresholds.USUAL`.

    Raises:
        InputError: `at` is no probability between 0 and 1, or what is stored is damaged.
    """
    if at is not None:
        if isinstance(at, bool) or not isinstance(at, int | float) or not 0 < at < 1:
            raise InputError(f"threshold={at}: a probability between 0 and 1 is needed, or null for the run's own")
        return {label: Threshold(float(logit(at)), "fixed", at, 0) for label in labels}
    stored = [thresholds.load(run.folder) for run in runs]
    for run, own in zip(runs, stored, strict=True):
        if own and (missing := [label for label in labels if label not in own]):
            raise RunError(
                f"{run.folder / 'thresholds.json'} has no threshold of {', '.join(missing)}; evaluate the run again"
            )
    if len(runs) == 1 and stored[0]:
        return {label: stored[0][label] for label in labels}
    rules = {(cut.rule, cut.at) for own in stored for cut in own.values()}
    rule, value = rules.pop() if len(rules) == 1 and all(stored) else (USUAL, None)
    if val is None:
        return {label: Threshold(Undefined(APART), rule, value, 0) for label in labels}
    reason = "of the mean of these runs" if len(runs) > 1 else f"since {runs[0].name} has none stored"
    log.info("thresholds: rule %s on the validation predictions, %s", rule, reason)
    return thresholds.chosen_on(val, labels, rule, value)


def temperatures(labels: Sequence[str], val: pd.DataFrame | None) -> dict[str, float]:
    """What each label's log-odds are divided by, fitted on validation as the report does; NaN where it cannot be."""
    if val is None:
        return {label: Undefined(APART) for label in labels}
    return {label: temperature(val[f"target_{label}"], val[f"logit_{label}"]) for label in labels}
