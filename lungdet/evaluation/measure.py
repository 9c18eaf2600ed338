"""Measures: what tables of predictions score, for one label or as the mean over findings, and over seeds.

A table has `target_<label>` and `probability_<label>`. A finding without both classes among the images has no metric
and is left out of the mean, which is over the same findings for every metric: a metric that is undefined in one of
them has no mean.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

import numpy as np
import pandas as pd

from lungdet.evaluation import metrics
from lungdet.evaluation.metrics import Undefined

Cuts = Mapping[str, float | pd.Series]
"""Each label's threshold: a number, or one an image by the table's index where images of several runs are pooled."""


def counts(table: pd.DataFrame, label: str = "abnormal") -> dict[str, int]:
    """Images, patients, and how many of the images have a label, and a positive one."""
    target = table[f"target_{label}"]
    return {
        "images": len(table),
        "patients": int(table["patient_id"].nunique()),
        "labelled": int(target.notna().sum()),
        "abnormal": int(target.sum()),
    }


def scored(tables: Sequence[pd.DataFrame], labels: Sequence[str], cuts: Sequence[Cuts]) -> dict:
    """A model's metrics over seeds at 0.5 and at the thresholds chosen on validation, JSON-ready.

    Args:
        tables: the same images' predictions, one table a seed.
        labels: `abnormal`; or findings, over which the mean is taken; or one finding.
        cuts: of each seed.
    """
    found = {
        "test": [measured(table, labels) for table in tables],
        "at_validation_threshold": [measured(t, labels, cut) for t, cut in zip(tables, cuts, strict=True)],
    }
    block = counts(tables[0], labels[0] if len(labels) == 1 else "abnormal")
    undefined = {}
    for name, values in found.items():
        block[name], block[f"{name}_sd"], undefined[name] = over(values)
    block["undefined"] = {name: reasons for name, reasons in undefined.items() if reasons}
    return block | ({"macro": over_which(tables[0], labels)} if len(labels) > 1 else {})


def measured(
    table: pd.DataFrame, labels: Sequence[str], cuts: Cuts | float = 0.5, names: Sequence[str] | None = None
) -> dict[str, float]:
    """Metrics (all, or those named) of one label, or their mean over the findings that have both classes."""
    if labels == ("abnormal",):
        return _of_label(table, "abnormal", cuts, names)
    names = list(metrics.METRICS if names is None else names)
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


def lacking(table: pd.DataFrame, label: str) -> str | None:
    """Why a finding can't be measured on these images, or None."""
    target = table[f"target_{label}"].dropna()
    if target.empty:
        return "unknown on every image"
    if target.nunique() == 2:
        return None
    return f"{'present' if target.iloc[0] else 'absent'} on every image that is known"


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
    cut = cuts[label] if isinstance(cuts, Mapping) else cuts
    if isinstance(cut, pd.Series):
        cut = cut.loc[table.index].to_numpy()
    return metrics.scores(table[f"target_{label}"], table[f"probability_{label}"], cut, names)


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
