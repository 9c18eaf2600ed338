"""Measures: what tables of predictions score, with intervals, for one label or as the mean over findings, over seeds.

A table has `target_<label>` and `logit_<label>`. A finding without both classes among the images has no metric
and is left out of the mean, which is over the same findings for every metric: a metric that is undefined in one of
them has no mean.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
import pandas as pd

from lungdet.evaluation.statistics import metrics
from lungdet.evaluation.statistics.bootstrap import replicate
from lungdet.evaluation.statistics.cases import Case, Sums, Undefined, deviation, mean_of_defined
from lungdet.evaluation.statistics.intervals import Estimate, interval
from lungdet.evaluation.statistics.metrics import METRICS, Metric

Cuts = Mapping[str, float | pd.Series]
"""Each label's threshold, in log-odds: a number, or one an image by the table's index where several runs are pooled."""
THRESHOLDED = {name for name, metric in METRICS.items() if metric.thresholded}
"""Metrics that a threshold changes."""


def counts(table: pd.DataFrame, label: str = "abnormal") -> dict[str, int]:
    """Images, patients, and how many of the images have a label, and a positive one."""
    target = table[f"target_{label}"]
    return {
        "images": len(table),
        "patients": int(table["patient_id"].nunique()),
        "labelled": int(target.notna().sum()),
        "abnormal": int(target.sum()),
    }


class Scores(NamedTuple):
    """A model's metrics over seeds: the JSON-ready block, and the estimates at 0.5 that comparisons are made of."""

    block: dict
    estimates: dict[str, Estimate]


def scored(tables: Sequence[pd.DataFrame], labels: Sequence[str], cuts: Sequence[Cuts], draws: int) -> Scores:
    """A model's metrics over seeds, with intervals, at 0.5 and at the thresholds chosen on validation.

    Args:
        tables: the same images' predictions, one table a seed.
        labels: `abnormal`; or findings, over which the mean is taken; or one finding.
        cuts: of each seed.
        draws: redrawn test parts that the intervals are made of.
    """
    half = estimated(tables, labels, draws)
    chosen = half | estimated(tables, labels, draws, [name for name in METRICS if name in THRESHOLDED], cuts)
    block = counts(tables[0], labels[0] if len(labels) == 1 else "abnormal")
    block |= as_block(test=half, at_validation_threshold=chosen)
    return Scores(block | ({} if tuple(labels) == ("abnormal",) else {"macro": over_which(tables[0], labels)}), half)


def as_block(**estimates: Mapping[str, Estimate]) -> dict:
    """JSON-ready: by key means over seeds (`key`), sample deviations (`key_sd`) and intervals (`key_interval`).

    What is undefined is None, and `undefined` says why, under the same keys.
    """
    block, undefined = {}, {}
    for key, by_metric in estimates.items():
        seeds = zip(*[estimate.values for estimate in by_metric.values()], strict=True)
        mean, sd, reasons = over([dict(zip(by_metric, values, strict=True)) for values in seeds])
        ends = {name: interval(estimate) for name, estimate in by_metric.items()}
        no_interval = {name: low.reason for name, (low, _) in ends.items() if math.isnan(low) and name not in reasons}
        intervals = {name: None if math.isnan(low) else [float(low), float(high)] for name, (low, high) in ends.items()}
        block |= {key: mean, f"{key}_sd": sd, f"{key}_interval": intervals}
        undefined |= {name: reason for name, reason in ((key, reasons), (f"{key}_interval", no_interval)) if reason}
    return block | {"undefined": undefined}


def estimated(
    tables: Sequence[pd.DataFrame],
    labels: Sequence[str],
    draws: int,
    names: Sequence[str] | None = None,
    cuts: Sequence[Cuts] | None = None,
) -> dict[str, Estimate]:
    """Metrics by seed and in redrawn test parts, of one label or as the mean over findings.

    In a redrawn part a finding that is missing leaves the mean over the others.

    Args:
        tables: see `scored`.
        labels: see `scored`.
        draws: see `scored`.
        names: of the metrics; None: all.
        cuts: of each seed; None: 0.5.
    """
    names = list(METRICS if names is None else names)
    cuts = [0.0] * len(tables) if cuts is None else cuts
    values = [measured(table, labels, cut, names) for table, cut in zip(tables, cuts, strict=True)]
    labels = measurable(tables[0], labels)
    # In the order of their images: by ids, two models under two keys of pseudonyms would meet unlike redrawn parts.
    patient, patients = pd.factorize(tables[0]["patient_id"])
    cases = [
        Case.of(table, label, cut_of(table, label, cut))
        for table, cut in zip(tables, cuts, strict=True)
        for label in labels
    ]
    by_seed = np.full((len(tables), len(labels), len(names), draws), np.nan)
    if len(patients) > 1 and cases:
        drawn = replicate(cases, patient, draws, metrics=[METRICS[name].drawn or METRICS[name] for name in names])
        by_seed = drawn.reshape(by_seed.shape)
    estimates = {}
    for place, name in enumerate(names):
        by_label = by_seed[:, :, place]
        estimates[name] = Estimate(
            [value[name] for value in values],
            by_label[:, 0] if len(labels) == 1 else mean_of_defined(by_label, 1),
            len(patients),
            supporting(METRICS[name], cases[: len(labels)], patient),
            METRICS[name].scale,
            _centre(cases, patient, METRICS[name]),
        )
    return estimates


def measured(
    table: pd.DataFrame, labels: Sequence[str], cuts: Cuts | float = 0.0, names: Sequence[str] | None = None
) -> dict[str, float]:
    """Metrics (all, or those named) of one label, or their mean over the findings that have both classes."""
    if labels == ("abnormal",):
        return _of_label(table, "abnormal", cuts, names)
    names = list(METRICS if names is None else names)
    by_finding = {label: _of_label(table, label, cuts, names) for label in labels if lacking(table, label) is None}
    if not by_finding:
        reason = lacking(table, labels[0]) if len(labels) == 1 else "no finding is there both present and absent"
        return {name: Undefined(reason) for name in names}
    return {name: _mean({label: values[name] for label, values in by_finding.items()}) for name in names}


def over_which(table: pd.DataFrame, labels: Sequence[str]) -> dict:
    """Which findings a mean over findings is over, and why the others are not among them."""
    reasons = {label: lacking(table, label) for label in labels}
    left_out = {label: reason for label, reason in reasons.items() if reason}
    return {"findings": len(labels) - len(left_out), "of": len(labels), "left_out": left_out}


def measurable(table: pd.DataFrame, labels: Sequence[str]) -> list[str]:
    """The labels that are measured on these images: one by itself, of several findings those with both classes."""
    return [label for label in labels if len(labels) == 1 or lacking(table, label) is None]


def lacking(table: pd.DataFrame, label: str) -> str | None:
    """Why a finding can't be measured on these images, or None."""
    target = table[f"target_{label}"].dropna()
    if target.empty:
        return "unknown on every image"
    if target.nunique() == 2:
        return None
    return f"{'present' if target.iloc[0] else 'absent'} on every image that is known"


def cut_of(table: pd.DataFrame, label: str, cuts: Cuts | float) -> float | np.ndarray:
    """A label's threshold: a number, or one an image (N,) where several runs are pooled."""
    cut = cuts[label] if isinstance(cuts, Mapping) else cuts
    return cut.loc[table.index].to_numpy() if isinstance(cut, pd.Series) else cut


def supporting(metric: Metric, cases: Sequence[Case], patient: np.ndarray) -> int:
    """Patients that a metric rests on: those with an image of the class it counts, or of the scarcer one."""
    groups = [case.y == value for case in cases for value in metric.rests_on] or [~np.isnan(case.y) for case in cases]
    return max(min((len(np.unique(patient[inside])) for inside in groups), default=1), 1)


def over(values: Sequence[Mapping[str, float]]) -> tuple[dict, dict, dict]:
    """Mean, sample standard deviation and reasons, over seeds say. A metric undefined in one has no mean over them."""
    mean, sd, reasons = {}, {}, {}
    for name in values[0]:
        column = [value[name] for value in values]
        missing = [value for value in column if math.isnan(value)]
        mean[name] = None if missing else fmean(column)
        sd[name] = None if missing or len(column) < 2 else stdev(column)
        if missing:
            times = f" (in {len(missing)} of {len(column)} runs)" if len(column) > 1 else ""
            reasons[name] = f"{getattr(missing[0], 'reason', 'it is NaN')}{times}"
    return mean, sd, reasons


def _of_label(table: pd.DataFrame, label: str, cuts: Cuts | float, names: Sequence[str] | None) -> dict[str, float]:
    return metrics.scores(table[f"target_{label}"], table[f"logit_{label}"], cut_of(table, label, cuts), names)


def _centre(cases: Sequence[Case], patient: np.ndarray, metric: Metric) -> float | None:
    """Where a metric's interval is centred, if not at its value: at what is drawn in its place."""
    if metric.drawn is None or not cases:
        return None
    by_patient = [case.sums(patient, int(patient.max()) + 1) for case in cases]
    return fmean(float(metric.drawn.of(Sums.of(sums.sum(axis=0), deviation(sums)))) for sums in by_patient)


def _mean(values: Mapping[str, float]) -> float:
    """Over findings; undefined with the first reason where one of them is."""
    if len(values) == 1:
        return next(iter(values.values()))
    undefined = [label for label, value in values.items() if np.isnan(value)]
    if not undefined:
        return fmean(values.values())
    named = ", ".join(undefined[:3]) + (" .." if len(undefined) > 3 else "")
    reason = getattr(values[undefined[0]], "reason", "it is NaN")
    return Undefined(f"in {len(undefined)} of {len(values)} findings ({named}) {reason}")
