"""Subgroups: how models do by dataset, sex, age, view and visit, and which gap is the largest."""

from collections.abc import Mapping

from lungdet.evaluation.sections.contract import Section, Unmeasured
from lungdet.evaluation.statistics.attributes import UNKNOWN
from lungdet.evaluation.statistics.subgroups import FEW, METRICS, of_model
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


SECTION = Section(
    "Subgroups",
    measure=lambda study: study.of_each("subgroups", lambda model: of_model(*study.tested(model))),
    tell=tell,
    unmeasured=unmeasured,
    claim=(36, 39),
)


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
