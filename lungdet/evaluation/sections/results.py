"""Results: the study's metrics of every model on the whole test part: the first screen of the report."""

from math import isnan

import pandas as pd

from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.sections import by_finding, curves, differences
from lungdet.evaluation.sections.contract import Section, Study, thresholds_of
from lungdet.evaluation.sections.metrics_table import metrics_table
from lungdet.evaluation.statistics.intervals import SEEDS_NEEDED
from lungdet.evaluation.statistics.measure import measured, over
from lungdet.evaluation.statistics.metrics import FURTHER, STUDY, log_odds
from lungdet.evaluation.statistics.thresholds import RULES
from lungdet.page import figures
from lungdet.page.document import Block, Columns, Details, Figure, Text
from lungdet.page.marked import marked
from lungdet.page.wording import BASELINE_NAMES, label, listed, metric_name, value

BASELINES = {"always_abnormal": 1.0, "always_normal": 0.0, "validation_share": None}
"""Constant answers; None is the share of abnormal images (or of those with the finding) in validation, 0.5
where validation knows nothing of a finding."""
PUBLISHED = {
    Model("cnn"): {"accuracy": 0.925, "precision": 0.908, "recall": 0.897, "f1": 0.902},
    Model("cnn_lstm"): {"accuracy": 0.941, "precision": 0.925, "recall": 0.919, "f1": 0.922},
}
"""The study's own table, on other images than anybody's here."""
STUDY_SOURCES = {"chestxray14", "montgomery", "shenzhen"}


def measure(study: Study) -> dict:
    """Each model's metrics and the thresholds of its runs, and what stands beside them."""
    models = {model: scores.block for model, scores in study.scores.items()}
    if study.task == "abnormal":
        for model, block in models.items():
            stored = study.stored(model)
            models[model] = block | {"thresholds": [by_label["abnormal"] for by_label in stored]}
    return {
        "models": models,
        "baselines": {name: _baseline(study.first, value) for name, value in BASELINES.items()},
        "published": PUBLISHED if _as_published(study) else {},
        "threshold": {"rule": study.rule, "at": study.at, "asked": study.asked} | {"meaning": RULES[study.rule]},
        "draws": study.draws,
    }


def show(summary: dict, study: Study) -> list[Block]:
    """The first screen: the table at the threshold asked for, ROC beside it, and how the models differ."""
    threshold, further = thresholds_of(summary)
    if len(study.models) > figures.MOST_LINES:
        models = {"": {label(model): block for model, block in summary["models"].items()}}
        ranked = [marked("auroc", "AUROC by model", models, "With 95 % intervals. Dotted: chance.")]
    elif summary["task"] != "abnormal":
        ranked = by_finding.pictures(summary)
    else:
        ranked = [curves.picture(summary, study, "roc")]
    beside = [differences.forest(summary)] if summary["comparisons"] else [_metrics(summary, threshold)]
    details = Details(
        f"How to read this, and the same at {'0.5' if further == 'test' else 'thresholds chosen on validation'}",
        [*map(Text, _how_to_read(summary)), metrics_table(summary, further)],
    )
    beside = [block for block in beside if block]
    columns = [ranked, beside] if len(study.models) <= figures.MOST_LINES else [ranked + beside]
    return [Columns([[metrics_table(summary, threshold), details], *[column for column in columns if column]])]


SECTION = Section(
    lambda summary: (
        f"Results at {next(iter(thresholds_of(summary).values()))}"
        f"{'' if summary['task'] == 'abnormal' else ', mean over findings'}"
    ),
    "results",
    measure=measure,
    meanings={
        "test": "mean over seeds on the test part at threshold 0.5; null where undefined, `undefined` says why; "
        "with task=findings the mean over findings (`macro` says which), each under `findings`",
        "test_interval": "95 % interval over redrawn test patients and, from three seeds on, seeds; of "
        "calibration_error about the error less what chance adds",
        "test_sd": "sample standard deviation over seeds; null with one seed, or where undefined",
        "at_validation_threshold": "the same at the threshold that each run's validation predictions chose",
    },
    show=show,
    claim=(1, 2, 28, 29, 32, 33, 37, 38),
)


def _as_published(study: Study) -> bool:
    """Whether the study's numbers are about the same task and sources: normal or abnormal on the three merged."""
    tested = {*study.first.test["dataset"].unique()}
    learnt_from = [result.learnt_from for result in study.results]
    of_study = all(sources == STUDY_SOURCES for sources in (tested, *learnt_from))
    return study.task == "abnormal" and study.external is None and of_study


def _metrics(summary: dict, key: str) -> Figure:
    """The study's four metrics, where there is no other model to compare with."""
    names, models = STUDY[:4], {label(model): block for model, block in summary["models"].items()}
    marks = {name: [figures.reach(block, key, metric) for metric in names] for name, block in models.items()}
    constant = {
        BASELINE_NAMES[name]: [figures.reach(summary["baselines"][name], "test", metric)[0] for metric in names]
        for name in ("always_abnormal", "always_normal")
    }
    words = {name: [f"{metric} {value(block, key, metric)}" for metric in names] for name, block in models.items()}
    element = figures.dots(list(map(metric_name, names)), marks, "", "metrics", None, strokes=constant)
    caption = "With 95 % intervals, beside what a constant answer reaches."
    return Figure("metrics", element, "The four metrics", f"{listed(words)}.", caption)


def _how_to_read(summary: dict) -> list[str]:
    """What the numbers of the study's table are."""
    rule = summary["threshold"]
    meaning = rule["meaning"] if rule["at"] is None else rule["meaning"].replace("`at`", f"{rule['at']:g}")
    chosen = "; ".join(f"{label(model)} {_thresholds(block)}" for model, block in summary["models"].items())
    notes = [
        "Per cent, AUROC as a decimal. An image is called abnormal where its probability is above the threshold. "
        f"`{rule['rule']}`: {meaning}{'' if rule['rule'] == 'fixed' else ', on validation alone'} ({chosen})."
    ]
    if summary["task"] != "abnormal":
        notes.append(f"{by_finding.over(summary)} Always abnormal: every finding on every image.")
    several = any(len(block["seeds"]) > 1 for block in summary["models"].values())
    unit_drawn = (
        "patients, not images" if summary["data"]["patients_known"] else "images, since nothing says whose they are"
    )
    notes.append(
        f"{'Means over seeds; in' if several else 'In'} brackets the 95 % interval over {summary['draws']:,} redrawn "
        f"test parts ({unit_drawn}); from {SEEDS_NEEDED} seeds on it counts their spread too. No interval: redrawn "
        "parts leave the number undefined, or never change it; `metrics.json` has each reason."
    )
    if summary["published"]:
        notes.append("Published rows: the study's own numbers, on other images; they are no target and no baseline.")
    return notes


def _thresholds(block: dict) -> str:
    """The chosen threshold, or the range of them over runs; of findings each has its own."""
    if "thresholds" not in block:
        return "by finding"
    values = [threshold["value"] for threshold in block["thresholds"] if threshold["value"] is not None]
    if not values:
        return "none"
    ends = sorted({f"{min(values):.3f}", f"{max(values):.3f}"})
    return " to ".join(ends)


def _baseline(replicate: Replicate, answer: float | None) -> dict:
    """A constant answer on the whole test part and on each dataset."""
    tables = []
    for result in replicate.results:
        shares = {name: result.val[f"target_{name}"].mean() if answer is None else answer for name in replicate.labels}
        logits = {f"logit_{name}": log_odds(0.5 if isnan(share) else share) for name, share in shares.items()}
        tables.append(result.test.assign(**logits))
    constant = pd.concat(tables, ignore_index=True)

    def block(rows: pd.DataFrame) -> dict:
        mean, _, reasons = over([measured(rows, replicate.labels, names=STUDY + FURTHER)])
        return {"test": mean, "undefined": {"test": reasons} if reasons else {}}

    return {**block(constant), "datasets": {name: block(rows) for name, rows in constant.groupby("dataset")}}
