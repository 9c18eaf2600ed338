"""The sections with the study's metrics: tables and figures of a summary's numbers, which they only put into words."""

from collections.abc import Sequence

import pandas as pd

from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.sections import by_finding, referral
from lungdet.evaluation.sections.contract import Section, Study, Written
from lungdet.evaluation.statistics import metrics, thresholds
from lungdet.evaluation.statistics.curves import curves
from lungdet.evaluation.statistics.intervals import SEEDS_NEEDED
from lungdet.evaluation.statistics.measure import THRESHOLDED, measured, over, scored
from lungdet.evaluation.statistics.metrics import FURTHER, STUDY
from lungdet.page import figures
from lungdet.page.document import Figure, Items, Table, Text
from lungdet.page.sentences import undefined
from lungdet.page.wording import BASELINE_NAMES, counted, figure, label, listed, metric_name, value, with_interval

BASELINES = {"always_abnormal": 1.0, "always_normal": 0.0, "validation_share": None}
"""Constant answers; None is the share of abnormal images (or of those with the finding) in validation, 0.5
where validation knows nothing of a finding."""
PUBLISHED = {
    Model("cnn"): {"accuracy": 0.925, "precision": 0.908, "recall": 0.897, "f1": 0.902},
    Model("cnn_lstm"): {"accuracy": 0.941, "precision": 0.925, "recall": 0.919, "f1": 0.922},
}
"""The study's own table, on other images than anybody's here."""


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
        "published": {} if study.synthetic or study.task != "abnormal" else PUBLISHED,
        "threshold": {"rule": study.rule, "at": study.at, "meaning": thresholds.RULES[study.rule]},
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


def study_table(summary: dict, dataset: str | None = None) -> Table:
    """Models at both thresholds, the trivial answers and, for the whole test part, the published rows."""
    rows, notes = [], {}
    for model, whole in summary["models"].items():
        block = whole if dataset is None else whole["datasets"][dataset]
        for key, at in (("test", "0.5"), ("at_validation_threshold", _thresholds(whole))):
            rows.append([label(model), at, *[with_interval(block, key, metric) for metric in STUDY]])
            _explain(notes, block, key, label(model))
    for name in ("always_abnormal", "always_normal"):
        whole = summary["baselines"][name]
        block = whole if dataset is None else whole["datasets"][dataset]
        rows.append([BASELINE_NAMES[name], "", *[value(block, "test", metric) for metric in STUDY]])
        _explain(notes, block, "test", BASELINE_NAMES[name])
    if dataset is None:
        for model, values in summary["published"].items():
            cells = [figure(metric, values[metric]) if metric in values else "not published" for metric in STUDY]
            rows.append([f"{label(model)}, published, other data", "", *cells])
    guide = _how_to_read(summary) if dataset is None else []
    return Table(["Model", "Threshold", *[metric_name(m) for m in STUDY]], rows, 2, [*guide, *undefined(notes)])


def further_tables(summary: dict) -> list[Table]:
    """Metrics beyond the study's: those that a threshold changes, and those of the probabilities themselves."""
    called, of_probabilities = (
        [metric for metric in FURTHER if (metric in THRESHOLDED) is kind] for kind in (True, False)
    )
    rows, notes = [], {}
    for model, block in summary["models"].items():
        for key, at in (("test", "0.5"), ("at_validation_threshold", _thresholds(block))):
            rows.append([label(model), at, *[with_interval(block, key, metric) for metric in called]])
            _explain(notes, block, key, label(model), called)
    for name in ("always_abnormal", "always_normal"):
        block = summary["baselines"][name]
        rows.append([BASELINE_NAMES[name], "", *[value(block, "test", metric) for metric in called]])
        _explain(notes, block, "test", BASELINE_NAMES[name], called)
    tables = [Table(["Model", "Threshold", *[metric_name(metric) for metric in called]], rows, 2, undefined(notes))]
    rows, notes = [], {}
    blocks = {label(model): block for model, block in summary["models"].items()}
    rows = [
        [name, *[with_interval(block, "test", metric) for metric in of_probabilities]] for name, block in blocks.items()
    ]
    blocks[BASELINE_NAMES["validation_share"]] = summary["baselines"]["validation_share"]
    rows.append(
        [*list(blocks)[-1:], *[value(list(blocks.values())[-1], "test", metric) for metric in of_probabilities]]
    )
    for name, block in blocks.items():
        _explain(notes, block, "test", name, of_probabilities)
    reads = "Decimals; of Brier score, log loss and calibration error the smaller is the better."
    return [
        *tables,
        Table(["Model", *[metric_name(metric) for metric in of_probabilities]], rows, 1, [reads, *undefined(notes)]),
    ]


def pictures(summary: dict, study: Study) -> list[Figure]:
    """The four metrics, and ROC and precision-recall curves or the AUROC by finding."""
    labels = {name: label(name) for name in study.models} | BASELINE_NAMES
    four = listed(
        {
            labels[name]: [f"{metric} {value(block, 'test', metric)}" for metric in STUDY[:4]]
            for name, block in summary["models"].items()
        }
    )
    mean = "" if summary["task"] == "abnormal" else ", each the mean over findings"
    four_metrics = Figure(
        "metrics",
        figures.study_metrics(summary, labels),
        f"The four metrics at threshold 0.5. {four}.",
        f"The study's four metrics at threshold 0.5{mean}, with 95 % intervals, and what a constant answer reaches.",
    )
    if summary["task"] != "abnormal":
        return [four_metrics, *by_finding.pictures(summary, labels)]
    curves_by_model = {
        name: curves([replicate.test for replicate in replicates], "abnormal")
        for name, replicates in study.models.items()
    }
    counts = summary["data"]["test"]
    share = counts["abnormal"] / counts["labelled"] if counts["labelled"] else None
    pooled = "; all parts' images pooled" if summary["parts"] else ""
    return [four_metrics] + [
        Figure(
            kind,
            figures.curves(
                {name: of_model[kind] for name, of_model in curves_by_model.items()},
                kind,
                {
                    name: f"{labels[name]}, {short} {_alone(block['test'][metric], metric)}"
                    for name, block in summary["models"].items()
                },
                share,
            ),
            f"{noun}. "
            + "; ".join(
                f"{labels[n]}: {metric_name(metric)} {value(b, 'test', metric)}" for n, b in summary["models"].items()
            )
            + ".",
            f"{caption}; mean over seeds, with the band that holds 95 % of redrawn test parts{pooled}. Dotted: chance.",
        )
        for kind, metric, short, noun, caption in (
            ("roc", "auroc", "AUROC", "ROC curves", "Recall against 1 - specificity over all thresholds"),
            (
                "pr",
                "average_precision",
                "AP",
                "Precision-recall curves",
                "Precision against recall over all thresholds",
            ),
        )
    ]


STUDY_TABLE = Section(
    lambda summary: "The study's table" if summary["task"] == "abnormal" else "Mean over findings",
    measure=measure,
    meanings={
        "test": "mean over seeds on the test part at threshold 0.5; null where undefined, `undefined` says why; "
        "with task=findings the mean over findings (`macro` says which), each under `findings`",
        "test_interval": "95 % interval over redrawn test patients and, from three seeds on, seeds; of "
        "calibration_error about the error less what chance adds",
        "test_sd": "sample standard deviation over seeds; null with one seed, or where undefined",
        "at_validation_threshold": "the same at the threshold that each run's validation predictions chose",
    },
    tell=lambda summary: [study_table(summary)],
    claim=(1, 2, 28, 29, 32, 33, 37, 38),
)
KEEP_IN_MIND = Section("What to keep in mind", tell=lambda summary: [Items(summary["caveats"])], claim=(14, 40))
FIGURES = Section("Figures", "curves", show=pictures, claim=(37,))
FURTHER_METRICS = Section(
    "Further metrics", tell=lambda summary: [*further_tables(summary), referral.matrix(summary)], claim=(28, 38)
)


class EachDataset(Section):
    """A section for each dataset, where several are pooled."""

    def written(self, summary: dict, study: Study) -> list[Written]:
        """The datasets' own tables."""
        datasets = summary["data"]["test_datasets"]
        return [
            Written(
                f"{name} alone",
                [Text(f"{counted(counts, summary['data'])}."), study_table(summary, name)],
                None,
                self.claim,
            )
            for name, counts in datasets.items()
            if len(datasets) > 1
        ]


DATASETS = EachDataset("Dataset by dataset", measure=measure_by_dataset, claim=(30,))


def _alone(value: float | None, metric: str) -> str:
    return "undefined" if value is None else figure(metric, value)


def _how_to_read(summary: dict) -> list[str]:
    """The notes below the study's table, once a report."""
    rule, findings = summary["threshold"], summary["task"] != "abnormal"
    at = "" if rule["at"] is None else f" ({rule['at']})"
    notes = [
        f"Per cent, AUROC as a decimal. Second threshold: chosen on validation alone by the rule `{rule['rule']}`{at}: "
        f"{rule['meaning']}. An image is called abnormal where its probability is above the threshold."
    ]
    if findings:
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
    elif summary["data"]["synthetic"]:
        notes.append("The study's published numbers are left out: these images are synthetic.")
    else:
        notes.append("The study's published numbers are left out: they are about normal against abnormal.")
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
    """Collects who lacks which metric by the reason, so that one reason is one note."""
    for metric, reason in block["undefined"].get(key, {}).items():
        if metric in names:
            entry = f"{metric_name(metric)} of {name}"
            notes.setdefault(reason, [])
            if entry not in notes[reason]:
                notes[reason].append(entry)


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
