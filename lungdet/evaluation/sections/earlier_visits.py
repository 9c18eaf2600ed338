"""Series: what the CNN-LSTM gains over the CNN from a patient's earlier images, where findings change and where not.

The measure is AUROC throughout, since a shifted threshold changes none. A finding that appeared is told from one that
is still absent, one that cleared from one that is still there: within each of these the visit before says the same of
all cases, so that who merely repeats it has 0.5.
"""

import pandas as pd

from lungdet.evaluation.sections.contract import Section, Study, Unmeasured
from lungdet.evaluation.sections.subgroups import FEW
from lungdet.evaluation.statistics import paired
from lungdet.evaluation.statistics.bootstrap import FEWER
from lungdet.evaluation.statistics.intervals import Estimate
from lungdet.evaluation.statistics.measure import as_block, counts, estimated
from lungdet.evaluation.statistics.visits import FOLLOWED, LENGTHS, groups
from lungdet.page import sentences
from lungdet.page.document import Details, Items, Table
from lungdet.page.sentences import THESE_RUNS, undefined
from lungdet.page.wording import difference, finding_name, join, label, metric_name, number, p_value, with_interval

CHANGES = {
    "appeared": "appeared (against: still absent)",
    "cleared": "cleared (against: still there)",
    "unchanged": "as at the visit before (there against absent)",
}
"""What the groups of `visits.groups` tell apart."""


def measure(study: Study) -> dict:
    """For each CNN beside a CNN-LSTM that reads visits: AUROC by group of cases, and the gain, CNN-LSTM minus CNN.

    Returns:
        Comparisons as `paired.compared` has them, by group instead of by metric; Holm's p is over all groups but those
        that are `few`. `groups`: each one's counts (`abnormal` are the positive cases), `findings` that a mean is over,
        and AUROC by model. `longest`: how many images are read at most.
    """
    models = study.models
    comparisons = []
    for first, second in study.pairs:
        config = models[second][0].first.run.config
        if (first.role, second.role) != ("cnn", "cnn_lstm") or config.model.get("sequence") != "visits":
            continue
        replicates, seeds = [*models[first], *models[second]], len(models[first])
        estimates: dict[str, dict[str, Estimate]] = {first: {}, second: {}}
        described = {}
        for group, (labels, inside) in groups(models[first][0].test, models[first][0].labels).items():
            rows = models[first][0].test[inside]
            judged = tuple(name for name in labels if _supporting(rows, name) >= FEW)
            block = counts(rows, labels[0] if len(labels) == 1 else "abnormal") | group._asdict()
            block |= {"few": not judged, "models": {}}
            block |= {"findings": list(judged)} if len(labels) > 1 else {}
            tables = [replicate.test[inside] for replicate in replicates]
            # Of both models at once, whose patients are then drawn once.
            auroc = estimated(tables, judged or labels, min(study.draws, FEWER), ["auroc"])["auroc"]
            for name, own in ((first, slice(seeds)), (second, slice(seeds, None))):
                estimates[name][group.name] = auroc._replace(values=auroc.values[own], draws=auroc.draws[own])
                block["models"][name] = as_block(test={"auroc": estimates[name][group.name]})
            described[group.name] = block
        if described:
            comparison = paired.compare(first, estimates[first], second, estimates[second])
            for group, block in described.items():
                comparison["metrics"][group] |= {"p": None} if block["few"] else {}
            comparisons.append(comparison | {"groups": described, "longest": config.data.get("visits")})
    return {"series": paired.adjust(comparisons)}


def tell(summary: dict) -> list:
    """The study's claim about series: where a gain is shown, and the table of groups.

    Args:
        summary: with `series`, what `measure` gave.
    """
    blocks: list = []
    for comparison in summary["series"]:
        blocks.append(Items([_claim(comparison), *_quoted(comparison), *_growth(comparison)]))
        blocks.append(Details("Every group of cases", [_table(comparison)]))
    return blocks


def advice(summary: dict) -> list[list[str]]:
    """Which model for series: the better one in each group where a difference is shown."""
    better = [
        f"{label(comparison['second' if cell['difference'] > 0 else 'first'])} "
        f"{where(comparison['groups'][group])}, which is shown"
        for comparison in summary["series"]
        for group, cell in comparison["metrics"].items()
        if sentences.significant(comparison, group)
    ]
    if not summary["series"]:
        return []
    none_shown = "no difference is shown, however long the series and whatever changed: as for all images"
    advised = "; ".join(better) or none_shown
    return [["Series of a patient's images", advised, "[Series of images](#series)"]]


def unmeasured(summary: dict) -> list[Unmeasured]:
    """What is gained from a patient's earlier images."""
    if summary["series"]:
        return []
    test = summary["data"]["test"]
    further = test["images"] - test["patients"] if summary["data"]["patients_known"] else 0
    images = f"{number(further, 'further image')} here" if further else "none is known here"
    question = f"What the CNN-LSTM gains from a patient's earlier images ({images})"
    command = "`python train.py experiment=temporal` on phantoms"
    if further:
        command = "`python train.py -m model=cnn,cnn_lstm model.sequence=visits seed=0,1,2`"
    return [Unmeasured(question, command)]


SECTION = Section(
    "Series of images",
    "series",
    measure=measure,
    meanings={
        "series": "CNN-LSTM minus CNN in AUROC by length of the series, and by what changed since the visit before "
        "(appeared against still absent, still there against cleared, there against absent where unchanged); "
        "`abnormal` of `labelled` cases are positive; `few`: too small, not in p_holm's family; empty: not measured"
    },
    tell=tell,
    advice=advice,
    unmeasured=unmeasured,
)


def where(group: dict) -> str:
    """The cases of a group, within a sentence: `where pneumonia appeared`."""
    if group["length"]:
        return "where there is no earlier image" if group["length"] == "1" else f"in series of {group['length']} images"
    change = "was as at the visit before" if group["change"] == "unchanged" else group["change"]
    return f"where {_called(group['finding'])} {change}"


CLAIM = (
    "The study says that the CNN-LSTM profits most from a patient's series of images, in which a finding changes "
    "gradually."
)
HOW = (
    "AUROC with 95 % intervals, which no choice of threshold changes. All cases that are told apart in the rows of "
    "findings that appeared, and of those that cleared, had the same label at the visit before: a model that merely "
    "repeats it has 0.5 there and 1 where nothing changed, so a gain where nothing changed is no sign that change is "
    "read. p is adjusted for all groups (Holm)."
)


def _supporting(rows: pd.DataFrame, name: str) -> int:
    """Patients with an image of the scarcer class."""
    return min(rows.loc[rows[f"target_{name}"] == value, "patient_id"].nunique() for value in (0, 1))


def _claim(comparison: dict) -> str:
    seeds = "" if comparison["counts_seeds"] else THESE_RUNS
    judged = [group for group, block in comparison["groups"].items() if not block["few"]]
    first, second = label(comparison["first"]), label(comparison["second"])
    text = f"{CLAIM} Here {second} reads a patient's visits and {first} the last image alone"
    if not judged:
        return f"{text}: no group of cases is large enough to say whether that helps."
    groups_shown = [group for group in judged if sentences.significant(comparison, group)]
    for noun, positive in (("gain", True), ("loss", False)):
        cases = [
            where(comparison["groups"][group])
            for group in groups_shown
            if (comparison["metrics"][group]["difference"] > 0) is positive
        ]
        if cases or noun == "gain":
            text += f"; a {noun} in AUROC is shown {join(cases)}{seeds}" if cases else "; no gain in AUROC is shown"
    return f"{text} ({number(len(judged), 'group')} judged)."


def _quoted(comparison: dict) -> list[str]:
    return [
        sentences.difference(comparison, group, "auroc", f"AUROC {where(comparison['groups'][group])}")
        for group in comparison["metrics"]
        if sentences.significant(comparison, group)
    ]


def _growth(comparison: dict) -> list[str]:
    """Whether the gain grows with the series, from the shortest group that is judged to the longest."""
    judged = [
        group
        for group in LENGTHS
        if group in comparison["groups"]
        and not comparison["groups"][group]["few"]
        and comparison["metrics"][group]["interval"]
    ]
    if len(judged) < 2:
        return []
    ends = [comparison["metrics"][group] for group in (judged[0], judged[-1])]
    apart = sentences.apart(*[end["interval"] for end in ends])
    return [
        f"{label(comparison['second'])} minus {label(comparison['first'])} in AUROC goes from {_cell(ends[0])} "
        f"{where(comparison['groups'][judged[0]])} to {_cell(ends[1])} {where(comparison['groups'][judged[-1]])}; "
        + ("the intervals lie apart." if apart else "the intervals overlap: that it grows is not shown.")
    ]


def _cell(cell: dict) -> str:
    return difference(cell["difference"], cell["interval"], "auroc")


def _table(comparison: dict) -> Table:
    models, rows, reasons = (comparison["first"], comparison["second"]), [], {}
    for group, block in comparison["groups"].items():
        if block["length"]:
            named = f"series of {block['length']} image{'' if block['length'] == '1' else 's'}"
        else:
            named = f"{_called(block['finding'])} {CHANGES[block['change']]}"
        cases = f"{block['abnormal']:,} / {block['labelled'] - block['abnormal']:,}"
        cell = comparison["metrics"][group]
        cells = [with_interval(block["models"][name], "test", "auroc") for name in models]
        few = " (few)" if block["few"] else ""
        rows.append([f"{named}{few}", cases, f"{block['patients']:,}", *cells, _cell(cell), p_value(cell["p_holm"])])
        if "undefined" in cell:
            reasons.setdefault(cell["undefined"], []).append(named)
    first, second = (label(name) for name in models)
    columns = [
        "Cases",
        "With / without it",
        "Patients",
        *[f"{name}, {metric_name('auroc')}" for name in (first, second)],
    ]
    return Table([*columns, f"{second} minus {first}", "p"], rows, 1, [HOW, *_notes(comparison), *undefined(reasons)])


def _notes(comparison: dict) -> list[str]:
    followed = {block["finding"] for block in comparison["groups"].values() if block["finding"]}
    by_finding = any("findings" in block for block in comparison["groups"].values())
    notes = [
        "A series holds all of a patient's images up to the one to classify; at most "
        f"{comparison['longest']} are read. Few: not {FEW} patients with and {FEW} without, too small to judge."
    ]
    if by_finding:
        notes.append("By length of series AUROC is the mean over the findings that are common enough.")
    elif followed - {"abnormal"}:
        notes.append(
            "The models call images normal or abnormal: of a finding's cases those are left out in which something "
            "else made the patient abnormal, now or at the visit before."
        )
    lacking = [_called(finding) for finding in FOLLOWED[by_finding:] if finding not in followed]
    if lacking:
        notes.append(f"Of no case it is known both now and at the visit before: {join(lacking)}.")
    return notes


def _called(finding: str) -> str:
    return "any finding" if finding == "abnormal" else finding_name(finding)
