"""Subgroups: how models do by dataset, sex, age, view and visit, and whether the largest gap is more than selection.

A group is all images with the labels outside it unknown: every group is measured on the same draws of patients, so a
patient with images in two of them (views, visits) is drawn for both, and no gap takes its two groups for independent.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
import pandas as pd

from lungdet.evaluation.gathering.peers import Tested
from lungdet.evaluation.sections.contract import Section, Study, Unmeasured
from lungdet.evaluation.statistics.cases import Undefined
from lungdet.evaluation.statistics.estimates import mean, minus
from lungdet.evaluation.statistics.intervals import LEVEL, Estimate, quantile, variance
from lungdet.evaluation.statistics.measure import THRESHOLDED, Cuts, as_block, counts, estimated, lacking
from lungdet.page.document import Columns, Details, Figure, Table, Text, items
from lungdet.page.marked import legible, marked
from lungdet.page.sentences import scope_of, undefined
from lungdet.page.wording import (
    between,
    figure,
    in_a_sentence,
    interval,
    join,
    label,
    metric_name,
    number,
    percent,
    points,
    rounded,
    signed,
    with_interval,
)

FEW = 20
"""A group is in no comparison if what is compared rests on fewer of its patients."""
OLDEST = 120
"""An age above it is a slip of the pen and counts as unknown."""
UNKNOWN = "unknown"
METRICS = ("recall", "specificity", "auroc", "accuracy")
SEXES = {"F": "female", "M": "male", "O": "other"}
AGES = {"under 18": 0, "18 to 39": 18, "40 to 59": 40, "60 to 74": 60, "75 or older": 75}
VISITS = {"first": 0, "second": 1, "3rd to 5th": 2, "6th or later": 5}
"""By group its first age or visit number, these from 0."""

ATTRIBUTES: dict[str, Callable[[pd.Series], pd.Series]] = {
    "dataset": lambda values: values.astype("category"),
    "sex": lambda values: values.map(lambda sex: SEXES.get(sex, sex), na_action="ignore").astype("category"),
    "age": lambda values: _banded(values, AGES, OLDEST + 1),
    "view": lambda values: values.astype("category"),
    "visit": lambda values: _banded(values, VISITS, np.inf),
}
"""What images are grouped by: from a column of the predictions to groups in their order, missing where unknown."""


class Gap(NamedTuple):
    """Two groups of an attribute, the lower first, and by how much the second is above the first."""

    attribute: str
    groups: tuple[str, str]
    values: tuple[float, float]
    estimate: Estimate
    unseen: float
    """Variance of groups where no redrawn patient changes anything, see `_unseen`."""
    labels: list[str]


def of_model(replicates: Sequence[Tested], cuts: Sequence[Cuts], draws: int) -> dict:
    """A block for each group of each attribute, and the gaps between groups of one attribute, the largest first.

    Gaps are in recall at 0.5, since who is missed counts; for findings in AUROC, over those that both groups have.

    Args:
        replicates: of one model.
        cuts: of each replicate, see `measure.scored`.
        draws: redrawn test parts.

    Returns:
        `attributes`: by attribute and group the counts, whether it is `few`, and the metrics at both thresholds;
        `left_out`: attributes with fewer than two values, and why; `measure`: what `gaps` are in; each gap has a 95 %
        `interval`, the Bonferroni-wide `interval_of_largest`, which allows for the number of gaps, and is `shown`
        where that one excludes 0.
    """
    tables, labels = [replicate.test for replicate in replicates], replicates[0].labels
    measure = "recall" if len(labels) == 1 else "auroc"
    attributes, left_out, gaps = {}, {}, []
    for attribute in ATTRIBUTES:
        groups, reason = divided(tables[0], attribute)
        if reason:
            left_out[attribute] = reason
            continue
        attributes[attribute], judged = {}, {}
        for group, inside in groups.items():
            block, by_label = _measured(tables, inside, labels, cuts, draws)
            enough = {
                name: metrics[measure] for name, metrics in by_label.items() if metrics[measure].supporting >= FEW
            }
            attributes[attribute][group] = block | {"few": not enough}
            if group != UNKNOWN:
                judged[group] = enough
        gaps += [_gap(attribute, *pair) for pair in itertools.combinations(judged.items(), 2)]
    gaps = [gap for gap in gaps if gap is not None]
    described = sorted([_described(gap, len(gaps)) for gap in gaps], key=lambda gap: -gap["difference"])
    return {"measure": measure, "attributes": attributes, "left_out": left_out, "gaps": described}


def divided(table: pd.DataFrame, attribute: str) -> tuple[dict[str, np.ndarray], str | None]:
    """Which images (N,) are in each group, those of which it is unknown last; or why there are not two groups.

    Unknown is what is missing, what says `unknown`, and what is no age or visit.
    """
    recorded = table[attribute].mask(table[attribute].astype("str").str.lower() == UNKNOWN)
    if recorded.isna().all():
        return {}, "not recorded"
    group = ATTRIBUTES[attribute](recorded)
    groups = {str(name): (group == name).to_numpy() for name in group.cat.categories if (group == name).any()}
    unknown = group.isna().to_numpy()
    if len(groups) < 2:
        known = " where it is known" if groups and unknown.any() else ""
        return {}, f"{next(iter(groups), UNKNOWN)} on every image{known}"
    return groups | ({UNKNOWN: unknown} if unknown.any() else {}), None


def tell(summary: dict) -> list:
    """The largest gap of every model in a sentence, the groups in a picture, a table an attribute folded."""
    blocks = {model: block["subgroups"] for model, block in summary["models"].items()}
    first = next(iter(blocks.values()))
    if not first["attributes"]:
        return []
    quoted = [sentence(model, block) for model, block in summary["models"].items()]
    if not any(block["gaps"] for block in blocks.values()):
        quoted = [f"No two groups of a kind have {_enough(first['measure'])} each, so no gap is named."]
    sentences = items(quoted, "model")
    few = f"Few: not {_enough(first['measure'])}, too small to judge and in no comparison."
    tables = [_table(blocks, attribute, first["measure"]) for attribute in first["attributes"]]
    left_out = [f"{attribute} ({reason})" for attribute, reason in first["left_out"].items()]
    notes = [Text(f"Not told apart: {join(left_out)}.")] if left_out else []
    text = Text(f"{HOW} {BY_MEASURE[first['measure']]} {few}")
    details = Details("The groups' numbers, and how to read them", [text, *tables, *notes])
    picture = _picture(blocks, first)
    return [Columns([[picture], [*sentences, details]])] if picture else [*sentences, details]


def unmeasured(summary: dict) -> list[Unmeasured]:
    """The subgroups, where nothing tells images apart."""
    first = next(iter(summary["models"].values()))["subgroups"]
    reasons = join([f"{attribute} is {reason}" for attribute, reason in first["left_out"].items()] or [""])
    return [] if first["attributes"] else [Unmeasured("Differences between subgroups", reasons)]


def measure(study: Study) -> dict:
    """What `of_model` finds, for every model."""
    return study.of_each("subgroups", lambda model: of_model(study.models[model], study.cuts[model], study.draws))


SECTION = Section("Subgroups", measure=measure, tell=tell, unmeasured=unmeasured, claim=(36, 39))


def sentence(model: str, block: dict) -> str:
    """A model's largest gap and whether it is shown; where another one is instead, that too."""
    subgroups = block["subgroups"]
    measure, gaps = subgroups["measure"], subgroups["gaps"]
    if not gaps:
        return f"{label(model)}: no two groups of a kind have {_enough(measure)} each, so no gap is named."
    largest, further = gaps[0], [gap for gap in gaps[1:] if gap["shown"]]
    if largest["difference"] < 1e-12:
        return f"{label(model)} has the same {in_a_sentence(measure)} in all groups that are large enough to judge."
    seeds = scope_of(block["seeds"])
    text = f"{label(model)}: the largest gap in {in_a_sentence(measure)} is by {_quoted(subgroups, largest)}"
    if len(gaps) > 1:
        text += (
            f". The largest of {len(gaps)} gaps is large by selection alone; the interval that allows for their number "
            f"is {between(largest['interval_of_largest'], measure, signed)}"
        )
    text += f": {f'a difference is shown{seeds}' if largest['shown'] else 'no difference is shown'}."
    if further:
        rest_of_them = f" ({number(len(further) - 1, 'other')} in `metrics.json`)" if len(further) > 1 else ""
        also = "Also shown" if largest["shown"] else "Shown"
        text += f" {also}{seeds} is that by {_quoted(subgroups, further[0])}{rest_of_them}."
    return text


HOW = (
    "At threshold 0.5 in per cent, AUROC as a decimal, with 95 % intervals over patients; the same at the validation "
    "thresholds is in `metrics.json`. Groups differ in their diseases and in how sure their labels are: a gap says "
    "where to look, not why."
)
BY_MEASURE = {
    "recall": "Gaps are in recall, since who is missed counts. Read them beside specificity: a higher recall with a "
    "lower specificity is a shifted threshold, not a better reading.",
    "auroc": "Means are over the findings that are both present and absent in a group, whose number stands in the "
    f"table, so two rows need not be over the same findings. Gaps are over those that {FEW} patients of both groups "
    f"have and {FEW} lack.",
}


def _banded(values: pd.Series, first: Mapping[str, float], end: float) -> pd.Series:
    """The bands that numbers lie in; what is no number (a table's age of `050Y`) is in none."""
    numbers = pd.to_numeric(values.astype("object"), errors="coerce").astype("float64")
    return pd.cut(numbers, [*first.values(), end], right=False, labels=list(first))


def _measured(
    tables: Sequence[pd.DataFrame], inside: np.ndarray, labels: Sequence[str], cuts: Sequence[Cuts], draws: int
) -> tuple[dict, dict[str, dict[str, Estimate]]]:
    """A group's block, and its estimates at 0.5 by label and metric."""
    targets = [f"target_{name}" for name in labels]
    within = [table.assign(**{name: table[name].where(inside) for name in targets}) for table in tables]
    over = [name for name in labels if len(labels) == 1 or lacking(within[0], name) is None]
    called, size = [name for name in METRICS if name in THRESHOLDED], counts(tables[0][inside])
    at_half = {name: estimated(within, (name,), draws, METRICS) for name in over}
    at_chosen = {name: estimated(within, (name,), draws, called, cuts) for name in over}
    block = as_block(
        test=_over_findings(at_half, METRICS, len(within), size["patients"]),
        at_validation_threshold=_over_findings(at_chosen, called, len(within), size["patients"]),
    )
    return size | block | ({"findings": over} if len(labels) > 1 else {}), at_half


def _over_findings(
    by_label: Mapping[str, Mapping[str, Estimate]], names: Sequence[str], seeds: int, patients: int
) -> dict[str, Estimate]:
    """Each metric's mean over findings, in a draw over those that are there."""
    if not by_label:
        undefined = Undefined("no finding is there both present and absent")
        return dict.fromkeys(names, Estimate([undefined] * seeds, np.full((seeds, 0), np.nan), patients, 1))
    means = {name: mean([of_label[name] for of_label in by_label.values()], over_defined=True) for name in names}
    return {name: estimate._replace(patients=patients) for name, estimate in means.items()}


def _gap(attribute: str, first: tuple[str, dict[str, Estimate]], second: tuple[str, dict[str, Estimate]]) -> Gap | None:
    """Between two groups, over the labels that both can be judged by; None where there is none."""
    shared = [name for name in first[1] if name in second[1]]
    if not shared:
        return None
    means = [
        (group, mean([by_label[name] for name in shared], over_defined=True)) for group, by_label in (first, second)
    ]
    (lower, below), (higher, above) = sorted(means, key=lambda pair: fmean(pair[1].values))
    estimate = minus(above, below)
    estimate = estimate._replace(patients=estimate.supporting)
    ends = fmean(below.values), fmean(above.values)
    return Gap(attribute, (lower, higher), ends, estimate, _unseen(below) + _unseen(above), shared)


def _unseen(estimate: Estimate) -> float:
    """The variance that a share has where it is the same in every draw (all found, say), as Agresti and Coull have it.

    Draws say that there is none; no miss in 20 patients does not rule out 15 % of misses.
    """
    drawn = estimate.draws.mean(axis=0)
    if np.nanmax(drawn) - np.nanmin(drawn) > 1e-12:
        return 0.0
    cases = estimate.supporting + 4
    share = (fmean(estimate.values) * estimate.supporting + 2) / cases
    return share * (1 - share) / cases


def _described(gap: Gap, gaps: int) -> dict:
    """A gap, JSON-ready, one of so many."""
    patients, seeds, freedom = variance(gap.estimate)
    value, error = gap.values[1] - gap.values[0], math.sqrt(patients + seeds + gap.unseen)
    alone, of_all = (
        [float(max(value - margin, -1)), float(min(value + margin, 1))]
        for margin in (error * quantile(1 - (1 - LEVEL) / 2 / among, freedom) for among in (1, gaps))
    )
    return {
        "attribute": gap.attribute,
        "groups": list(gap.groups),
        "values": list(gap.values),
        "difference": value,
        "interval": alone,
        "interval_of_largest": of_all,
        "shown": bool(of_all[0] > 0),
        "labels": gap.labels,
    }


def _picture(blocks: Mapping[str, dict], first: dict) -> Figure | None:
    """Every group that is large enough to judge, in the metric that gaps are in; None where it would say nothing."""
    measure = first["measure"]
    groups = [
        (attribute, group)
        for attribute, by_group in first["attributes"].items()
        for group, block in by_group.items()
        if not block["few"]
    ]
    if not groups:
        return None
    models = {
        label(model): {f"{attribute}: {group}": block["attributes"][attribute][group] for attribute, group in groups}
        for model, block in blocks.items()
    }
    if not legible(models):
        return None
    name = metric_name(measure)
    caption = "At threshold 0.5, with 95 % intervals over patients; groups too small to judge are in the tables alone."
    return marked("subgroups", f"{name} by subgroup", models, caption, measure, axis=name, line=None)


def _table(blocks: Mapping[str, dict], attribute: str, measure: str) -> Table:
    first = next(iter(blocks.values()))["attributes"][attribute]
    findings = ["Findings"] if measure == "auroc" else []
    rows, reasons = [], {}
    for group, size in first.items():
        few = " (few)" if size["few"] and group != UNKNOWN else ""
        share = rounded(size["abnormal"] / size["labelled"]) if size["labelled"] else ""
        support = [f"{size['images']:,} / {size['patients']:,}", share]
        for model, block in blocks.items():
            group_block = block["attributes"][attribute][group]
            over = [str(len(group_block["findings"]))] if findings else []
            cells = [with_interval(group_block, "test", metric) for metric in METRICS]
            rows.append([f"{group}{few}", label(model), *support, *over, *cells])
            reasons |= dict.fromkeys(group_block["undefined"].get("test", {}).values())
    notes = undefined(reasons)
    columns = [attribute.capitalize(), "Model", "Images / patients", "Abnormal, %", *findings]
    return Table([*columns, *[metric_name(metric) for metric in METRICS]], rows, 2, notes)


def _quoted(subgroups: dict, gap: dict) -> str:
    measure, blocks, clauses = subgroups["measure"], subgroups["attributes"][gap["attribute"]], []
    for group, value in zip(gap["groups"], gap["values"], strict=True):
        if measure == "auroc":
            clauses.append(f"{figure(measure, value)} in {group}")
            continue
        beside = blocks[group]["test"]["specificity"]
        specificity = "" if beside is None else f" (specificity {percent(beside)})"
        clauses.append(f"{percent(value)}{specificity} in {group}")
    size, unit = points(measure, gap["difference"])
    over = f" over {number(len(gap['labels']), 'finding')}" if measure == "auroc" else ""
    return (
        f"{gap['attribute']}: {join(clauses)}, {size}{unit} apart{over}, {interval(gap['interval'], measure, signed)}"
    )


def _enough(measure: str) -> str:
    if measure == "recall":
        return f"{FEW} patients with an abnormal image"
    return f"{FEW} patients with and {FEW} without one same finding"
