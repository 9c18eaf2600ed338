"""The sections with the study's metrics: tables and figures of a summary's numbers, which they only put into words."""

from collections.abc import Sequence

import pandas as pd

from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.sections import by_finding, differences, referral
from lungdet.evaluation.sections.contract import Section, Study, thresholds_of
from lungdet.evaluation.statistics import metrics, thresholds
from lungdet.evaluation.statistics.curves import curves
from lungdet.evaluation.statistics.intervals import SEEDS_NEEDED
from lungdet.evaluation.statistics.measure import THRESHOLDED, measured, over, scored
from lungdet.evaluation.statistics.metrics import FURTHER, STUDY
from lungdet.page import figures
from lungdet.page.document import Block, Columns, Details, Figure, Table, Text, items
from lungdet.page.marked import marked
from lungdet.page.sentences import undefined
from lungdet.page.wording import (
    BASELINE_NAMES,
    counted,
    figure,
    join,
    label,
    listed,
    metric_name,
    value,
    with_interval,
)

BASELINES = {"always_abnormal": 1.0, "always_normal": 0.0, "validation_share": None}
"""Constant answers; None is the share of abnormal images (or of those with the finding) in validation, 0.5
where validation knows nothing of a finding."""
PUBLISHED = {
    Model("cnn"): {"accuracy": 0.925, "precision": 0.908, "recall": 0.897, "f1": 0.902},
    Model("cnn_lstm"): {"accuracy": 0.941, "precision": 0.925, "recall": 0.919, "f1": 0.922},
}
"""The study's own table, on other images than anybody's here."""
STUDY_SOURCES = {"chestxray14", "montgomery", "shenzhen"}
MOST_CURVES = 6
"""Of more models the first screen has the AUROC in place of curves that nobody could tell apart."""
MOST_CAVEATS = 6
"""So many caveats, the heaviest, stand on the first screen; the others are folded beneath."""


def measure(study: Study) -> dict:
    """Each model's metrics on the whole test part the thresholds of its runs, and what stands beside them."""
    models = {}
    for model, replicates in study.models.items():
        stored = study.stored(replicates) if study.task == "abnormal" else []
        models[model] = study.scores[model].block | (
            {"thresholds": [by_label["abnormal"] for by_label in stored]} if stored else {}
        )
    return {
        "models": models,
        "baselines": {name: _baseline(study.first, value) for name, value in BASELINES.items()},
        "published": PUBLISHED if _as_published(study) else {},
        "threshold": {
            "rule": study.rule,
            "at": study.at,
            "asked": study.asked,
            "meaning": thresholds.RULES[study.rule],
        },
        "draws": study.draws,
    }


def measure_by_dataset(study: Study) -> dict:
    """Each model's metrics on each dataset of the test part."""
    models = {}
    for model, replicates in study.models.items():
        tables = [replicate.test for replicate in replicates]
        models[model] = {
            "datasets": {
                name: scored(
                    [table[table["dataset"] == name] for table in tables], study.labels, study.cuts[model], study.draws
                ).block
                for name in sorted(tables[0]["dataset"].unique())
            }
        }
    return {"models": models}


def lead(summary: dict, study: Study) -> list[Block]:
    """The first screen: the table at the threshold asked for, ROC beside it, and how the models differ."""
    threshold, further = thresholds_of(summary)
    if len(study.models) > MOST_CURVES:
        models = {"": {label(model): block for model, block in summary["models"].items()}}
        ranked = [marked("auroc", "AUROC by model", models, "With 95 % intervals. Dotted: chance.")]
    elif summary["task"] != "abnormal":
        ranked = by_finding.pictures(summary)
    else:
        ranked = [_curves(summary, study, "roc")]
    beside = [differences.forest(summary)] if summary["comparisons"] else [_metrics(summary, threshold)]
    details = Details(
        f"How to read this, and the same at {'0.5' if further == 'test' else 'thresholds chosen on validation'}",
        [*map(Text, _how_to_read(summary)), table(summary, further)],
    )
    beside = [block for block in beside if block]
    columns = [ranked, beside] if len(study.models) <= MOST_CURVES else [ranked + beside]
    return [Columns([[table(summary, threshold), details], *[column for column in columns if column]])]


def table(summary: dict, key: str, names: Sequence[str] = STUDY, dataset: str | None = None) -> Table:
    """Models at a threshold, and the constant answers; among the study's metrics of all images its published rows."""
    constant = ("always_abnormal", "always_normal") if THRESHOLDED & {*names} else ("validation_share",)
    rows, notes = [], {}
    for model, whole in summary["models"].items():
        block = whole if dataset is None else whole["datasets"][dataset]
        rows.append([label(model), *[with_interval(block, key, metric) for metric in names]])
        _explain(notes, block, key, label(model), names)
    for name in constant:
        whole = summary["baselines"][name]
        block = whole if dataset is None else whole["datasets"][dataset]
        rows.append([BASELINE_NAMES[name], *[value(block, "test", metric) for metric in names]])
        _explain(notes, block, "test", BASELINE_NAMES[name], names)
    for model, values in summary["published"].items() if names == STUDY and dataset is None else ():
        cells = [figure(metric, values[metric]) if metric in values else "" for metric in names]
        rows.append([f"{label(model)}, published, other data", *cells])
    return Table(["Model", *map(metric_name, names)], rows, 1, undefined(_lacking(notes)))


def further(summary: dict, study: Study) -> list[Block]:
    """Precision-recall curves and confusion matrices, every further metric folded beneath."""
    few = summary["task"] == "abnormal" and len(study.models) <= MOST_CURVES
    pictures = [[_curves(summary, study, "pr")], referral.matrices(summary)] if few else []
    called = tuple(metric for metric in FURTHER if metric in THRESHOLDED)
    of_probabilities = tuple(metric for metric in FURTHER if metric not in THRESHOLDED)
    blocks: list[Block] = []
    for key, at in thresholds_of(summary).items():
        blocks += [Text(f"At {at}, shares in per cent:"), table(summary, key, called)]
        blocks.append(referral.matrix(summary, key))
    blocks.append(Text("Of the probabilities; of Brier score, log loss and calibration error the smaller is better:"))
    blocks.append(table(summary, "test", of_probabilities))
    return [*([Columns([column for column in pictures if column])] if pictures else []), Details("The numbers", blocks)]


def keep_in_mind(summary: dict) -> list[Block]:
    """Every caveat, of many the lightest folded."""
    return items(summary["caveats"], MOST_CAVEATS, "caveat")


def each_dataset(summary: dict) -> list[Block]:
    """Where several datasets are pooled, the AUROC on each, and each one's table."""
    datasets, key = summary["data"]["test_datasets"], next(iter(thresholds_of(summary)))
    if len(datasets) < 2:
        return []
    models = {label(model): block["datasets"] for model, block in summary["models"].items()}
    tables = [
        block
        for name, counts in datasets.items()
        for block in (Text(f"{name}: {counted(counts, summary['data'])}."), table(summary, key, dataset=name))
    ]
    return [
        marked("datasets", "AUROC by dataset", models, "With 95 % intervals. Dotted: chance."),
        Details(f"Each dataset's table, at {thresholds_of(summary)[key]}", tables),
    ]


STUDY_TABLE = Section(
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
    show=lead,
    claim=(1, 2, 28, 29, 32, 33, 37, 38),
)
KEEP_IN_MIND = Section("What to keep in mind", tell=keep_in_mind, claim=(14, 40))
FURTHER_METRICS = Section("Further metrics", show=further, claim=(28, 37, 38))
DATASETS = Section("Dataset by dataset", measure=measure_by_dataset, tell=each_dataset, claim=(30,))


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
        BASELINE_NAMES[name]: [
            float("nan") if (v := summary["baselines"][name]["test"][m]) is None else v for m in names
        ]
        for name in ("always_abnormal", "always_normal")
    }
    words = {name: [f"{metric} {value(block, key, metric)}" for metric in names] for name, block in models.items()}
    element = figures.dots(list(map(metric_name, names)), marks, "", "metrics", None, strokes=constant)
    caption = "With 95 % intervals, beside what a constant answer reaches."
    return Figure("metrics", element, "The four metrics", f"{listed(words)}.", caption)


def _curves(summary: dict, study: Study, kind: str) -> Figure:
    """ROC (`roc`) or precision-recall curves (`pr`)."""
    metric, short, title = {
        "roc": ("auroc", "AUROC", "ROC curves"),
        "pr": ("average_precision", "AP", "Precision-recall curves"),
    }[kind]
    lines = {
        name: curves([replicate.test for replicate in replicates], "abnormal", kind)
        for name, replicates in study.models.items()
    }
    counts, models = summary["data"]["test"], summary["models"]
    share = counts["abnormal"] / counts["labelled"] if counts["labelled"] else None
    entries = {
        name: f"{label(name)}, {short} {figure(metric, block['test'][metric])}" for name, block in models.items()
    }
    words = "; ".join(f"{label(n)}: {metric_name(metric)} {value(b, 'test', metric)}" for n, b in models.items())
    pooled = "; all parts' images pooled" if summary["parts"] else ""
    caption = f"Mean over seeds, with the band of 95 % of redrawn test parts{pooled}. Dotted: chance."
    return Figure(kind, figures.curves(lines, kind, entries, share), title, f"{words}.", caption)


def _how_to_read(summary: dict) -> list[str]:
    """What the numbers of the study's table are."""
    rule = summary["threshold"]
    chosen = "; ".join(f"{label(model)} {_thresholds(block)}" for model, block in summary["models"].items())
    notes = [
        "Per cent, AUROC as a decimal. An image is called abnormal where its probability is above the threshold. "
        f"`{rule['rule']}`: {rule['meaning']}{'' if rule['rule'] == 'fixed' else ', on validation alone'} ({chosen})."
    ]
    if summary["task"] != "abnormal":
        notes.append(f"{by_finding.over(summary)} Always abnormal: every finding on every image.")
    several = any(len(block["seeds"]) > 1 for block in summary["models"].values())
    unit_drawn = (
        "patients, not images" if summary["data"]["patients_known"] else "images, since nothing says whose they are"
    )
    notes.append(
        f"{'Mean over seeds' if several else 'In brackets:'} {'with ' if several else ''}95 % interval over "
        f"{summary['draws']:,} redrawn test parts ({unit_drawn}); from {SEEDS_NEEDED} seeds on it counts their "
        "spread too."
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


def _explain(notes: dict, block: dict, key: str, name: str, names: Sequence[str] = STUDY) -> None:
    """Collects who lacks which metrics by the reason."""
    for metric, reason in block["undefined"].get(key, {}).items():
        if metric in names:
            metrics_of = notes.setdefault(reason, {}).setdefault(name, [])
            metrics_of.append(metric_name(metric))


def _lacking(notes: dict[str, dict[str, list[str]]]) -> dict[str, list[str]]:
    """By reason who lacks what, all together that lack the same: `Accuracy and F1 of CNN and CNN-LSTM`."""
    lacking: dict[str, list[str]] = {}
    for reason, of in notes.items():
        alike: dict[tuple[str, ...], list[str]] = {}
        for name, names in of.items():
            alike.setdefault(tuple(names), []).append(name)
        lacking[reason] = [f"{join([*names])} of {join(models)}" for names, models in alike.items()]
    return lacking


def _baseline(replicate: Replicate, answer: float | None) -> dict:
    """A constant answer on the whole test part and on each dataset."""
    parts = []
    for result in replicate.results:
        answers = dict.fromkeys(replicate.labels, answer)
        if answer is None:
            known = {label: result.val[f"target_{label}"].dropna() for label in replicate.labels}
            answers = {
                label: labels.mean() if len(labels) else 0.5 for label, labels in known.items()
            }  # 0.5: nothing is known
        parts.append(
            result.test.assign(**{f"logit_{label}": metrics.log_odds(value) for label, value in answers.items()})
        )
    constant = pd.concat(parts, ignore_index=True)

    def block(rows: pd.DataFrame) -> dict:
        mean, _, reasons = over([measured(rows, replicate.labels, names=STUDY + FURTHER)])
        return {"test": mean, "undefined": {"test": reasons} if reasons else {}}

    return {**block(constant), "datasets": {name: block(rows) for name, rows in constant.groupby("dataset")}}
