"""Flattery: how much better a model would look if its threshold had been picked on the test part; never a result."""

from collections.abc import Sequence

from lungdet.evaluation.gathering.peers import Tested
from lungdet.evaluation.sections.contract import Section, Study, cuts_of
from lungdet.evaluation.statistics import thresholds
from lungdet.evaluation.statistics.measure import Cuts, measured, over
from lungdet.page.document import Caution, Details, Table
from lungdet.page.sentences import undefined
from lungdet.page.wording import in_a_sentence, join, label, metric_name, number, percent, points, value

SOUGHT = {
    "youden": ("balanced_accuracy",),
    "f1": ("f1",),
    "sensitivity": ("recall", "specificity"),
    "specificity": ("specificity", "recall"),
}
"""What each rule promises or makes large; `fixed` chooses nothing."""
MOST_QUOTED = 3
"""So many models are quoted; the table has all."""
PICKED = {
    "at_half": "0.5",
    "at_validation_threshold": "picked on validation",
    "at_test_threshold": "picked on test: no result",
}


def of_model(replicates: Sequence[Tested], cuts: Sequence[Cuts], rule: str, at: float | None) -> dict | None:
    """Metrics on the test part at 0.5, at validation's threshold and at one picked on test, means over seeds.

    Args:
        replicates: of one model; each fold or held-out source gets the threshold of its own test labels.
        cuts: of each replicate, chosen on validation, see `measure.scored`.
        rule: that chose them, see `thresholds.RULES`; `at` its value where it takes one.
        at: see `rule`.

    Returns:
        By the keys of `PICKED` the means, their `_sd` and what is `undefined`; None for a rule that chooses nothing.
    """
    if rule not in SOUGHT:
        return None
    names = (*SOUGHT[rule], "accuracy")
    on_test = [
        cuts_of(rep, [thresholds.chosen_on(table, rep.labels, rule, at, "test") for table in rep.tables])
        for rep in replicates
    ]
    picked = ([0.0] * len(replicates), cuts, on_test)
    block: dict = {"undefined": {}}
    for key, of_seeds in zip(PICKED, picked, strict=True):
        scores = [
            measured(replicate.test, replicate.labels, cut, names)
            for replicate, cut in zip(replicates, of_seeds, strict=True)
        ]
        block[key], block[f"{key}_sd"], reasons = over(scores)
        block["undefined"] |= {key: reasons} if reasons else {}
    return block


def tell(summary: dict) -> list:
    """A warning with what a threshold picked on test would have claimed, and its table; nothing for a fixed one."""
    blocks = {model: block["flattery"] for model, block in summary["models"].items()}
    if None in blocks.values():
        return []
    rule = summary["threshold"]["rule"]
    rows, reasons = [], {}
    for model, block in blocks.items():
        for key, words in PICKED.items():
            cells = [value(block, key, metric) for metric in (*SOUGHT[rule], "accuracy")]
            rows.append([label(model), words, *cells])
            reasons |= dict.fromkeys(block["undefined"].get(key, {}).values())
    claims = [words for model, block in blocks.items() if (words := _claimed(model, block, SOUGHT[rule]))]
    further = f"; and {number(len(claims) - MOST_QUOTED, 'further model')}" if len(claims) > MOST_QUOTED else ""
    named = f"{'; '.join(claims[:MOST_QUOTED])}{further}"
    clause = f" With thresholds picked by the rule `{rule}` on the test labels: {named}." if claims else ""
    warning = (
        f"No results: what the same predictions would seem worth if thresholds were picked on the test part.{clause}"
    )
    several = any(len(block["seeds"]) > 1 for block in summary["models"].values())
    notes = [f"Per cent{', mean over seeds ± SD' if several else ''}.", *undefined(reasons)]
    columns = ["Model", "Threshold", *[metric_name(metric) for metric in (*SOUGHT[rule], "accuracy")]]
    return [Caution(warning), Details("At each of these thresholds", [Table(columns, rows, 2, notes)])]


def measure(study: Study) -> dict:
    """What `of_model` finds, for every model."""
    return study.of_each(
        "flattery", lambda model: of_model(study.models[model], study.cuts[model], study.rule, study.at)
    )


SECTION = Section(
    "What a threshold picked on test would have claimed", "thresholds", measure=measure, tell=tell, claim=(30,)
)


def _claimed(model: str, block: dict, metrics: Sequence[str]) -> str | None:
    """What a model would have claimed instead of what it reaches; None where either is undefined."""
    ours, claimed = ([block[f"at_{part}_threshold"][m] for m in metrics] for part in ("validation", "test"))
    if None in (*ours, *claimed):
        return None
    clauses = [
        f"{in_a_sentence(metric)} {percent(on_test)} instead of {percent(on_validation)}"
        for metric, on_test, on_validation in zip(metrics, claimed, ours, strict=True)
    ]
    claim = f"{label(model)} {join(clauses)}"
    if len(metrics) > 1:
        return claim
    size, unit = points(metrics[0], abs(claimed[0] - ours[0]))
    more = f"{size}{unit} {'more' if claimed[0] >= ours[0] else 'less'}" if float(size) else "no more"
    return f"{claim} ({more})"
