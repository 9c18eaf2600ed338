"""The numbers of a report: metrics of every model, baseline and dataset, as plain values that `metrics.json` holds.

A model's number is the mean over its seeds, beside the sample standard deviation. What is undefined is None, and
`undefined` says why. Nothing here chooses anything by test data: thresholds come from validation.
"""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pandas as pd

from lungdet.evaluation import metrics, thresholds
from lungdet.evaluation.compare import differences, identity
from lungdet.evaluation.results import Result, Skipped

log = logging.getLogger(__name__)

STUDY = ("accuracy", "precision", "recall", "f1", "auroc")
FURTHER = ("specificity", "balanced_accuracy", "average_precision", "brier", "log_loss")
BASELINES = {"always_abnormal": 1.0, "always_normal": 0.0}
PUBLISHED = {
    "cnn": {"accuracy": 0.925, "precision": 0.908, "recall": 0.897, "f1": 0.902},
    "cnn_lstm": {"accuracy": 0.941, "precision": 0.925, "recall": 0.919, "f1": 0.922},
}
"""The study's own table, on other images than anybody's here."""
READING = {
    "test": "mean over seeds on the test part at threshold 0.5; null where undefined, `undefined` says why",
    "test_sd": "sample standard deviation over seeds; null with one seed, or where undefined",
    "at_validation_threshold": "the same at the threshold that each run's validation predictions chose",
    "source_alone_auroc": "0.5 for a single dataset; null where the test part holds one class",
}
"""What the keys of `metrics.json` mean."""

COSTS = ("parameters", "fit_seconds", "epochs", "best_epoch", "images_per_second", "peak_memory_bytes")


def summarise(
    models: Mapping[str, Sequence[Result]],
    skipped: Sequence[Skipped],
    rule: str,
    at: float | None,
    out: Path,
    external: str | None = None,
) -> dict:
    """Everything a report states, JSON-ready.

    Args:
        models: the runs of each model, tested on the same images (see `compare`).
        skipped: runs that could not be evaluated.
        rule: of the threshold chosen on validation, see `thresholds.RULES`; `at` its value where it takes one.
        at: see `rule`.
        out: the folder of the report; run folders are named relative to it.
        external: what other data was scored, or None for the runs' own test part.
    """
    results = [result for runs in models.values() for result in runs]
    first = results[0]
    test = first.test
    environment = first.run.environment
    return {
        "reading": READING,
        "models": {name: _model(runs, rule, at, out) for name, runs in models.items()},
        "baselines": {name: _baseline(test, value) for name, value in BASELINES.items()},
        "published": {} if any(_synthetic(name) for name in test.dataset) else PUBLISHED,
        "threshold": {"rule": rule, "at": at, "meaning": thresholds.RULES[rule]},
        "split": environment["split"] | {"hashes": sorted({r.run.environment["split"]["hash"] for r in results})},
        "data": environment.get("data", {})
        | {
            "external": external,
            "known_sources": sorted({*test.dataset} & {*environment.get("data", {}).get("sources", {})}),
            "synthetic": bool(test.dataset.map(_synthetic).any()),
            "test": _counts(test),
            "test_datasets": {name: _counts(rows) for name, rows in test.groupby("dataset")},
            "val": _counts(first.val),
            "val_datasets": {name: _counts(rows) for name, rows in first.val.groupby("dataset")},
            "source_alone_auroc": _none(source_alone(test)),
        },
        "settings_that_differ": differences([identity(runs[0]) for runs in models.values()], shared_only=True),
        "not_evaluated": [{"run": _relative(one.folder, out), "reason": one.reason} for one in skipped],
    }


def source_alone(test: pd.DataFrame) -> float:
    """AUROC of an answer that knows an image's source and nothing of its pixels: the source's own share of abnormal.

    The shares are those of the test images themselves, so this is the most that the source could give away.
    """
    share = test.groupby("dataset").target_abnormal.transform("mean").fillna(0)
    return metrics.auroc(test.target_abnormal, share)


def _model(runs: Sequence[Result], rule: str, at: float | None, out: Path) -> dict:
    chosen = [_threshold(result, rule, at) for result in runs]
    environments = [result.run.environment for result in runs]
    datasets = sorted(runs[0].test.dataset.unique())
    return {
        **_scored([result.test for result in runs], chosen),
        "datasets": {
            name: _scored([result.test[result.test.dataset == name] for result in runs], chosen) for name in datasets
        },
        "thresholds": [threshold.as_dict() for threshold in chosen],
        "seeds": [result.seed for result in runs],
        "runs": [
            {
                "run": _relative(result.run.folder, out),
                "seed": result.seed,
                "started": result.run.environment.get("started"),
                "git": result.run.environment.get("git"),
                "threshold": threshold.as_dict()["value"],
                "test": {k: _none(v) for k, v in _at(result.test, 0.5).items()},
            }
            for result, threshold in zip(runs, chosen, strict=True)
        ],
        **{cost: _mean([environment.get(cost) for environment in environments]) for cost in COSTS},
        "precision": sorted({str(environment.get("precision", "unknown")) for environment in environments}),
        "hardware": sorted({str(environment.get("hardware", {}).get("device")) for environment in environments}),
        "model": runs[0].run.config.model._target_,
    }


def _scored(tables: Sequence[pd.DataFrame], chosen: Sequence[thresholds.Threshold]) -> dict:
    """One model's metrics over seeds at 0.5 and at the thresholds chosen on validation."""
    found = {
        "test": [_at(table, 0.5) for table in tables],
        "at_validation_threshold": [_at(t, threshold.value) for t, threshold in zip(tables, chosen, strict=True)],
    }
    block = {**_counts(tables[0])}
    undefined = {}
    for name, values in found.items():
        block[name], block[f"{name}_sd"], undefined[name] = _over_seeds(values)
    return {**block, "undefined": {name: reasons for name, reasons in undefined.items() if reasons}}


def _over_seeds(values: Sequence[dict[str, float]]) -> tuple[dict, dict, dict]:
    """Mean, sample standard deviation and reasons. A metric undefined in one seed has no mean over them."""
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


def _baseline(test: pd.DataFrame, answer: float) -> dict:
    """A constant answer on the whole test part and on each dataset; probability metrics mean nothing for it."""

    def block(rows: pd.DataFrame) -> dict:
        values = metrics.scores(rows.target_abnormal, np.full(len(rows), answer), names=STUDY + FURTHER[:3])
        mean, _, reasons = _over_seeds([values])
        return {"test": mean, "undefined": {"test": reasons} if reasons else {}}

    return {**block(test), "datasets": {name: block(rows) for name, rows in test.groupby("dataset")}}


def _threshold(result: Result, rule: str, at: float | None) -> thresholds.Threshold:
    """Chosen on the run's validation predictions, and stored in its folder."""
    threshold = thresholds.choose(result.val.target_abnormal, result.val.probability_abnormal, rule, at)
    stored = thresholds.load(result.run.folder)
    if stored is not None and stored.as_dict() == threshold.as_dict():
        return stored
    if stored is not None:
        was = f"{stored.rule}{'' if stored.at is None else f' at {stored.at}'}"
        log.info("%s: the stored threshold (%s) is replaced by rule %s", result.run.folder, was, rule)
    try:
        thresholds.save(threshold, result.run.folder)
    except OSError as error:
        log.warning(
            "%s: the threshold could not be stored there (%s); it stands in metrics.json", result.run.folder, error
        )
    return threshold


def _at(table: pd.DataFrame, threshold: float) -> dict[str, float]:
    return metrics.scores(table.target_abnormal, table.probability_abnormal, threshold)


def _counts(table: pd.DataFrame) -> dict[str, int]:
    return {
        "images": len(table),
        "patients": int(table.patient_id.nunique()),
        "labelled": int(table.target_abnormal.notna().sum()),
        "abnormal": int(table.target_abnormal.sum()),
    }


def _synthetic(dataset: str) -> bool:
    return dataset.startswith("phantom")


def _mean(values: Sequence[float | None]) -> float | None:
    return None if any(value is None for value in values) else fmean(values)


def _none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _relative(folder: Path, out: Path) -> str:
    """A run folder as seen from the report, so that both can be moved together."""
    return Path(os.path.relpath(folder.resolve(), out.resolve())).as_posix()
