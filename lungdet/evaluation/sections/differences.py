"""Differences: the section that sets two models against each other, with sentences to quote."""

import itertools

from lungdet.evaluation.sections import starts
from lungdet.evaluation.sections.contract import Section, Study
from lungdet.evaluation.statistics import paired
from lungdet.evaluation.statistics.intervals import SEEDS_NEEDED
from lungdet.evaluation.statistics.metrics import FURTHER, STUDY
from lungdet.page import figures, sentences
from lungdet.page.document import Figure, Items, Table, Text
from lungdet.page.wording import label, metric_name, p_value, points, unit

MOST_FORESTS = 4
"""A sweep with more pairs has its differences in the table alone."""


def tell(summary: dict) -> list:
    """Every comparison: the sentences to quote, the table and a forest plot."""
    comparisons = summary["comparisons"]
    if not comparisons:
        return [Text("There is no other model to compare with.")]
    measure = "accuracy" if summary["task"] == "abnormal" else "auroc"
    quoted = [sentences.difference(one, metric) for one in comparisons for metric in dict.fromkeys((measure, "auroc"))]
    rows, notes, several = [], {}, len(comparisons) > 1
    for one in comparisons:
        for metric in (*STUDY, *FURTHER):
            found = one["metrics"][metric]
            if "undefined" in found:
                notes.setdefault(found["undefined"], []).append(metric_name(metric))
            rows.append([*_pair(one, several), metric_name(metric), *_difference(metric, found)])
    seeds, drawn = all(one["counts_seeds"] for one in comparisons), unit(summary["data"])
    said = [
        f"{'First minus second' if several else _minus(comparisons[0])} at threshold 0.5, on the same redrawn test "
        f"{drawn}s; shares in points of a per cent. "
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
    columns = ["Metric", "Difference", "95 % interval", "p", "adjusted", "exchanged"]
    said += [f"No interval for {', '.join(dict.fromkeys(names))}: {reason}." for reason, names in notes.items()]
    table = Table([*(["Models"] if several else []), *columns], rows, 2 if several else 1, said)
    return [
        Items([*quoted, *_not_compared(summary)]),
        table,
        *[_forest(one, number) for number, one in enumerate(comparisons[:MOST_FORESTS])],
    ]


def measure(study: Study) -> dict:
    """Every pair's differences, see `paired.compared`."""
    tables = {model: [one.test for one in replicates] for model, replicates in study.models.items()}
    return {"comparisons": paired.compared(study.estimates, tables, study.labels, study.pairs)}


SECTION = Section(
    "Differences between the models",
    "differences",
    measure=measure,
    meanings={
        "comparisons": "second minus first at threshold 0.5; p_holm: adjusted for the study's four metrics and AUROC "
        "of all pairs; p_permutation: exchanging the models patient by patient, seeds not counted"
    },
    tell=tell,
    caveats=starts.caveats,
    claim=(29, 37),
)


def _not_compared(summary: dict) -> list[str]:
    """Which pairs are left out, where some models have the same settings and are compared for that."""
    done = {(one["first"], one["second"]) for one in summary["comparisons"]}
    others = [pair for pair in itertools.combinations(summary["models"], 2) if pair not in done]
    if not others:
        return []
    named = "; ".join(f"{label(one)} with {label(two)}" for one, two in others[:MOST_FORESTS])
    more = f"; and {len(others) - MOST_FORESTS} more pairs" if len(others) > MOST_FORESTS else ""
    return [
        f"Compared are models of the same settings, with the CNN-LSTM where there is one. Not compared: {named}{more}. "
        "Evaluate two by themselves to compare them: `python evaluate.py 'runs=[A,B]'`."
    ]


def _pair(one: dict, several: bool) -> list[str]:
    return [_minus(one)] if several else []


def _minus(one: dict) -> str:
    return f"{label(one['second'])} minus {label(one['first'])}"


def _difference(metric: str, found: dict) -> list[str]:
    """The cells of a comparison."""
    size = "undefined" if found["difference"] is None else points(metric, found["difference"])[0]
    ends = found["interval"]
    between = "none" if ends is None else " to ".join(points(metric, end)[0] for end in ends)
    p = [p_value(found.get(key)) for key in ("p", "p_holm", "p_permutation")]
    return [size, between, *p]


def _forest(one: dict, number: int) -> Figure:
    second = label(one["second"])
    said = "; ".join(
        f"{metric_name(metric)} {' ['.join(_difference(metric, found)[:2])}]"
        for metric, found in one["metrics"].items()
    )
    name = f"differences-{number + 1}" if number else "differences"
    return Figure(
        name,
        figures.forest(one, _minus(one), name),
        f"Differences, {_minus(one)}: {said}.",
        f"{_minus(one)} with 95 % intervals; right of 0 {second} has the larger number (of losses and "
        "errors the smaller is the better). Blue: the metrics that Holm's adjustment is over.",
    )
