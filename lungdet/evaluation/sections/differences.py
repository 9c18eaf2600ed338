"""Differences: the section that sets two models against each other, with sentences to quote."""

import itertools

from lungdet.evaluation.sections import starts
from lungdet.evaluation.sections.contract import Section, Study, Unmeasured, judged_by, without_peers
from lungdet.evaluation.statistics import paired
from lungdet.evaluation.statistics.intervals import SEEDS_NEEDED
from lungdet.evaluation.statistics.metrics import FURTHER, STUDY
from lungdet.page import sentences
from lungdet.page.document import Details, Figure, Table, items
from lungdet.page.marked import marked
from lungdet.page.wording import between, join, label, metric_name, p_value, signed, unit

MOST_PAIRS = 8
"""A sweep with more pairs has its differences in the table alone."""
MOST_NAMED = 4
"""So many pairs that are not compared are named."""


def tell(summary: dict) -> list:
    """Every comparison: the sentences to quote, and the table."""
    comparisons = summary["comparisons"]
    if not comparisons:
        return []
    quoted = [sentences.difference(comparison, metric) for comparison in comparisons for metric in judged_by(summary)]
    rows, notes, several = [], {}, len(comparisons) > 1
    for comparison in comparisons:
        for metric in (*STUDY, *FURTHER):
            cell = comparison["metrics"][metric]
            if "undefined" in cell:
                notes.setdefault(cell["undefined"], []).append(metric_name(metric))
            pair = [_minus(comparison)] if several else []
            rows.append([*pair, metric_name(metric), *_difference(metric, cell)])
    seeds, drawn = all(comparison["counts_seeds"] for comparison in comparisons), unit(summary["data"])
    remarks = [
        f"{'First minus second' if several else _minus(comparisons[0])} at threshold 0.5, on the same redrawn test "
        f"{drawn}s; shares in percentage points. "
        + (
            f"Interval and p count the choice of test {drawn}s and the spread over seeds (Student's t). "
            if seeds
            else f"With fewer than {SEEDS_NEEDED} seeds of a model, interval and p are about the choice of test "
            f"{drawn}s only, for these very runs; p is the permutation test's where there is one, else Student's. "
        )
        + f"Adjusted: Holm over the study's four metrics and AUROC{' of all pairs' if several else ''}; "
        "a difference is shown where it is below 0.05. The other metrics have intervals only.",
        f"Exchanged: a permutation test that exchanges the models' predictions {drawn} by {drawn}; seeds not counted.",
    ]
    if peers := [label(model) for model in summary["models"] if model not in without_peers(summary)["models"]]:
        remarks.append(
            f"{join(peers)}: without seeds; beside a model that has {SEEDS_NEEDED} that one's spread counts."
        )
    columns = ["Metric", "Difference", "95 % interval", "p", "adjusted", "exchanged"]
    remarks += [f"No interval for {', '.join(dict.fromkeys(names))}: {reason}." for reason, names in notes.items()]
    table = Table([*(["Models"] if several else []), *columns], rows, 2 if several else 1, remarks)
    details = Details("Every metric's difference, and what p is", [table])
    return [*items([*quoted, *_not_compared(summary)], "sentence"), details]


def measure(study: Study) -> dict:
    """Every pair's differences, see `paired.compared`."""
    tables = {model: [replicate.test for replicate in replicates] for model, replicates in study.models.items()}
    return {"comparisons": paired.compared(study.estimates, tables, study.labels, study.pairs)}


ANOTHER_MODEL = Unmeasured(
    "Differences between models: one is here",
    "`python train.py -m model=cnn,cnn_lstm seed=0,1,2`",
)
SECTION = Section(
    "Differences between the models",
    "differences",
    measure=measure,
    meanings={
        "comparisons": "second minus first at threshold 0.5; p_holm: adjusted for the study's four metrics and AUROC "
        "of all pairs; p_permutation: exchanging the models patient by patient, seeds not counted"
    },
    tell=tell,
    caveats=lambda summary: starts.caveats(without_peers(summary)),
    unmeasured=lambda summary: [] if summary["comparisons"] else [ANOTHER_MODEL],
    claim=(29, 37),
)


def _not_compared(summary: dict) -> list[str]:
    """Which pairs are left out, where some models have the same settings and are compared for that."""
    compared = {(first["first"], first["second"]) for first in summary["comparisons"]}
    left_out = [pair for pair in itertools.combinations(without_peers(summary)["models"], 2) if pair not in compared]
    if not left_out:
        return []
    named = "; ".join(f"{label(first)} with {label(second)}" for first, second in left_out[:MOST_NAMED])
    further = f"; and {len(left_out) - MOST_NAMED} more pairs" if len(left_out) > MOST_NAMED else ""
    return [
        "Compared are models of the same settings, with the CNN-LSTM where there is one. "
        f"Not compared: {named}{further}. Evaluate two by themselves to compare them: "
        "`python evaluate.py 'runs=[A,B]'`."
    ]


def _minus(comparison: dict) -> str:
    return f"{label(comparison['second'])} minus {label(comparison['first'])}"


def _difference(metric: str, cell: dict) -> list[str]:
    """The cells of a comparison."""
    size = "undefined" if cell["difference"] is None else signed(metric, cell["difference"])
    p = [p_value(cell.get(key)) for key in ("p", "p_holm", "p_permutation")]
    return [size, between(cell["interval"], metric, signed), *p]


def forest(summary: dict) -> Figure | None:
    """A single comparison's differences metric by metric; of several each one's in AUROC; None where they are many."""
    comparisons = summary["comparisons"]
    if len(comparisons) > MOST_PAIRS:
        return None
    if len(comparisons) == 1:
        title, cells = _minus(comparisons[0]), {metric_name(m): comparisons[0]["metrics"][m] for m in STUDY}
    else:
        title = "Differences in AUROC"
        cells = {_minus(comparison): comparison["metrics"]["auroc"] for comparison in comparisons}
    blocks = {
        name: {"test": {"auroc": cell["difference"]}, "test_interval": {"auroc": cell["interval"]}}
        for name, cell in cells.items()
    }
    caption = "At threshold 0.5, with 95 % intervals; right of 0 the first is larger. 0.01 is a percentage point."
    return marked("differences", title, {"": blocks}, caption, axis="difference", line=0, limits=None)
