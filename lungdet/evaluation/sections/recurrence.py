"""Recurrence: whether it is the LSTM's reading of an order that helps, or its parameters and its steps alone."""

from lungdet.evaluation.gathering.models import CONTROLS
from lungdet.evaluation.sections.contract import Section, Study, Unmeasured
from lungdet.evaluation.statistics import paired
from lungdet.evaluation.statistics.bootstrap import FEWER
from lungdet.evaluation.statistics.measure import as_block, counts, estimated
from lungdet.evaluation.statistics.visits import earlier_visits
from lungdet.page import sentences
from lungdet.page.document import Details, Items, Table
from lungdet.page.sentences import THESE_RUNS, undefined
from lungdet.page.wording import difference, join, label, metric_name, p_value, with_interval

WHAT = {
    "cnn": "sees the last image and no sequence",
    "cnn_mlp": "as many parameters as the CNN-LSTM and no recurrence",
    "cnn_lstm_shuffled": "the CNN-LSTM, its steps in an order drawn for each case",
    "cnn_lstm_frozen": "the CNN-LSTM, the LSTM left at its random start",
    "pool": "the same steps, averaged",
    "length_only": "the length of the series, without a pixel",
}
"""What a model of each role has of the CNN-LSTM, in the order of the table."""
DECIDE = {"cnn_mlp": "CNN-MLP", "cnn_lstm_shuffled": "CNN-LSTM shuffled"}
"""The roles of the controls that the CNN-LSTM has to be better than, the matched and the shuffled one, and names."""
ENOUGH = 2
"""Earlier visits from which on they have an order: of visits the last stays the last when they are shuffled."""
CASES = {"all": "all cases", "earlier": "cases with two or more earlier visits"}


def measure(study: Study) -> dict:
    """For each CNN-LSTM that has controls: AUROC of all models compared with it, and its difference from each.

    Returns:
        `model`, the CNN-LSTM's name; `missing`, roles of `DECIDE` that no model has; `helps`; `cases`, by key of
        `CASES` the counts, AUROC by model, and `comparisons` as `paired.compared` has them, the CNN-LSTM second. Those
        with two or more earlier visits are there where it reads visits and any case has them. Holm's p is over the
        comparisons that decide, and over the others apart.
    """
    models = study.models
    studies = []
    for lstm in [name for name in models if name.role == "cnn_lstm"]:
        partners = [first for first, second in study.pairs if second == lstm and first.role != "cnn_lstm"]
        if not {name.role for name in partners} & CONTROLS:
            continue
        partners.sort(key=lambda name: [*WHAT, name.role].index(name.role))
        names, first = [lstm, *partners], models[lstm][0]
        on = {"all": {name: {"auroc": study.estimates[name]["auroc"]} for name in names}}
        cases = {"all": counts(first.test)}
        known = first.test[[f"target_{name}" for name in first.labels]].notna().any(axis=1)
        visits = first.first.run.config.model.get("sequence") == "visits"
        if visits and (inside := known & (earlier_visits(first.test) >= ENOUGH)).any():
            cases["earlier"] = counts(first.test[inside])
            on["earlier"] = {}
            for name in names:
                tables = [replicate.test[inside] for replicate in models[name]]
                on["earlier"][name] = estimated(tables, first.labels, min(study.draws, FEWER), ["auroc"])
        for key, estimates in on.items():
            blocks = {name: as_block(test=estimates[name]) for name in names}
            compared = [paired.compare(partner, estimates[partner], lstm, estimates[lstm]) for partner in partners]
            cases[key] |= {"models": blocks, "comparisons": compared}
        comparisons = [comparison for case in cases.values() for comparison in case["comparisons"]]
        deciding = paired.adjust([comparison for comparison in comparisons if comparison["first"].role in DECIDE])
        paired.adjust([comparison for comparison in comparisons if comparison["first"].role not in DECIDE])
        missing = [role for role in DECIDE if role not in {name.role for name in partners}]
        helps = not missing and all(_better(comparison) for comparison in deciding)
        studies.append({"model": lstm, "missing": missing, "helps": helps, "cases": cases})
    return {"recurrence": studies}


def tell(summary: dict) -> list:
    """Whether the recurrence helps and why that is said, and every control beside the CNN-LSTM.

    Args:
        summary: with `recurrence`, what `measure` gave.
    """
    blocks: list = []
    for outcome in summary["recurrence"]:
        quoted = [
            sentences.difference(compared, "auroc", "auroc", f"AUROC on {CASES[key]}")
            for key, compared in _deciding(outcome)
        ]
        blocks += [Items([sentence(summary, outcome), *quoted]), Details("Every control", [_table(summary, outcome)])]
    return blocks


def verdicts(summary: dict) -> list[str]:
    """Whether the recurrence of each CNN-LSTM helps."""
    return [f"{verdict(summary, outcome)} ([why](#recurrence))." for outcome in summary["recurrence"]]


def unmeasured(summary: dict) -> list[Unmeasured]:
    """Whether it is the recurrence that helps, where a CNN-LSTM has no controls or there is none."""
    if summary["recurrence"]:
        return []
    return [Unmeasured("Whether it is the recurrence that helps, or more parameters", _adds(summary, None))]


SECTION = Section(
    "Is it the recurrence?",
    "recurrence",
    measure=measure,
    meanings={
        "recurrence": "each CNN-LSTM minus its controls in AUROC, on `all` cases and on those with two or more "
        "`earlier` visits; `helps`: better than the matched and the shuffled control, shown in each; p_holm: over "
        "these comparisons, and over those with other models apart; empty: no control is here"
    },
    tell=tell,
    verdicts=verdicts,
    unmeasured=unmeasured,
)


def sentence(summary: dict, outcome: dict) -> str:
    """Whether the recurrence helps; if that is not shown, which comparison shows none or which control is missing."""
    lstm, deciding = outcome["model"], _deciding(outcome)
    if outcome["helps"]:
        better_than = dict.fromkeys(label(compared["first"]) for _, compared in deciding)
        return (
            f"{verdict(summary, outcome)}: {label(lstm)}'s AUROC is above that of {join(list(better_than))} on "
            f"{join([CASES[key] for key in outcome['cases']])}, and each of these differences is shown."
        )
    reasons = [
        f"{DECIDE[role]} is missing ({WHAT[role]}): {_adds(summary, lstm)} adds it" for role in outcome["missing"]
    ]
    for key, compared in deciding:
        if sentences.significant(compared, "auroc") and not _better(compared):
            reasons.append(f"on {CASES[key]} {label(compared['first'])} is better than {label(lstm)}, which is shown")
        elif not _better(compared):
            reasons.append(f"on {CASES[key]} {label(lstm)} is not shown to be better than {label(compared['first'])}")
    return f"{verdict(summary, outcome)}: {'; '.join(reasons)}."


def verdict(summary: dict, outcome: dict) -> str:
    """What is said of one CNN-LSTM, without the reasons."""
    of = f" of {label(outcome['model'])}" if len(summary["recurrence"]) > 1 else ""
    if not outcome["helps"]:
        return f"No effect of the recurrence{of} is shown"
    seeds = all(compared["counts_seeds"] for _, compared in _deciding(outcome))
    return f"The recurrence{of} helps{'' if seeds else THESE_RUNS}"


def _better(compared: dict) -> bool:
    """Whether the CNN-LSTM's AUROC is shown to be above the other's."""
    return sentences.significant(compared, "auroc") and compared["metrics"]["auroc"]["difference"] > 0


def _deciding(outcome: dict) -> list[tuple[str, dict]]:
    """The comparisons that decide, each with the cases that it is on."""
    return [
        (key, compared)
        for key, case in outcome["cases"].items()
        for compared in case["comparisons"]
        if compared["first"].role in DECIDE
    ]


def _adds(summary: dict, lstm: str | None) -> str:
    visits = lstm is not None and summary["models"][lstm]["settings"]["sequence"] == "visits"
    return f"`python train.py experiment=controls{' model.sequence=visits' if visits else ''} data.root=DIR`"


def _table(summary: dict, outcome: dict) -> Table:
    lstm, reasons = outcome["model"], {}
    rows = [[label(name)] for name in outcome["cases"]["all"]["models"]]
    columns = ["Model"]
    for key, case in outcome["cases"].items():
        columns += [f"{metric_name('auroc')}, {CASES[key]}", f"{label(lstm)} minus it", "p"]
        cells = [["", ""]]
        for compared in case["comparisons"]:
            auroc = compared["metrics"]["auroc"]
            cells.append([difference(auroc["difference"], auroc["interval"], "auroc"), p_value(auroc["p_holm"])])
            if "undefined" in auroc:
                reasons.setdefault(auroc["undefined"], {})[CASES[key]] = None
        for row, block, cell in zip(rows, case["models"].values(), cells, strict=True):
            row += [with_interval(block, "test", "auroc"), *cell]
    return Table(columns, rows, 1, [*_notes(summary, outcome), *undefined(reasons)])


def _notes(summary: dict, outcome: dict) -> list[str]:
    named = {name: name.role for name in outcome["cases"]["all"]["models"] if name != outcome["model"]}
    mean = "" if summary["task"] == "abnormal" else ", the mean over findings"
    notes = [
        f"AUROC{mean}, 95 % intervals. That the recurrence helps is said where the CNN-LSTM is better than the model "
        "of as many parameters and than itself shuffled, each shown. p is adjusted (Holm) for the comparisons with "
        "these two; those with other models decide nothing and are adjusted by themselves.",
        f"{'; '.join(f'{label(name)}: {WHAT[role]}' for name, role in named.items() if role in WHAT)}.",
    ]
    if "earlier" in outcome["cases"]:
        all_cases, with_order = (outcome["cases"][key]["labelled"] for key in ("all", "earlier"))
        notes.append(
            f"Earlier visits have an order where there are two or more: {with_order:,} of {all_cases:,} labelled "
            "cases. Below that the shuffled control reads what the CNN-LSTM reads."
        )
    return notes
