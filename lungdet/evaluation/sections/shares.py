"""Shares: what is told of models that were trained on several shares of the images, at each of them and along them."""

from collections.abc import Callable, Sequence

from lungdet.evaluation.sections import gap
from lungdet.evaluation.sections.choice import advised
from lungdet.evaluation.sections.sweep import Sweep, Value, missing
from lungdet.page import figures, sentences
from lungdet.page.document import Block, Columns, Details, Figure, Items, Table, Text
from lungdet.page.wording import difference, in_a_sentence, label, with_interval


def layout(verdict: str | None, items: list[str], picture: Figure | None, numbers: Details) -> list[Block]:
    """A verdict and sentences, beside a picture where there is one, above the numbers."""
    words = [*([Text(verdict)] if verdict else []), *([Items(items)] if items else [])]
    return [*([Columns([[picture], words])] if picture else words), numbers]


def advised_at_each(summary: dict, swept: Sweep, metrics: Sequence[str]) -> list[tuple[Value, str]]:
    """At each value which model is advised, and why."""
    return [
        (value, advised(summary, swept.at(value, summary["comparisons"]), metrics, swept.called))
        for value in swept.values
    ]


def share(value: float) -> str:
    """A share that was set, as it was set: `10 %`."""
    return f"{100 * value:.4g} %"


def numbers(
    summary: dict,
    swept: Sweep,
    called: Callable[[Value, dict | None], str],
    columns: Sequence[str],
    cells: Callable[[dict], list[str]],
    notes: Sequence[str],
) -> Details:
    """A row a share and model, `not run` where there is none.

    The first column is of shares as `called` has them, of the value and the model's block there; the others are of what
    `cells` gives of the block.
    """
    rows = []
    for value, line, model in swept.cells:
        block = summary["models"].get(model)
        images = "" if block is None else f"{block['settings']['train']['images']:,}"
        measured = ["not run"] * (len(columns) - 1) if block is None else cells(block)
        rows.append([called(value, block), images, label(line), *measured])
    table = Table([columns[0], "Images", "Model", *columns[1:]], rows, 3, [*notes, *missing(rows)])
    return Details("The numbers, with intervals", [table])


def quoted_at_each(summary: dict, swept: Sweep, metrics: Sequence[str], where: Callable[[Value], str]) -> list[str]:
    """At each value what the comparisons show in these metrics of the test part, and in AUROC's gap."""
    items = []
    for value in swept.values:
        tested = swept.at(value, summary["comparisons"])
        texts = [
            sentences.difference(comparison, metric, called=swept.called) for comparison in tested for metric in metrics
        ]
        gaps = swept.at(value, summary["gap_comparisons"])
        texts += [gap.sentence(comparison, "auroc", swept.called) for comparison in gaps]
        if texts:
            items.append(f"{where(value)}: {' '.join(texts)}")
    return items


def trends(summary: dict, swept: Sweep, metrics: Sequence[str], of_what: str) -> list[str]:
    """How two models' difference changes from the first share to the last that both were run at."""
    by_pair: dict[tuple[str, str], list[tuple[float, dict]]] = {}
    for value in swept.values:
        for comparison in swept.at(value, summary["comparisons"]):
            pair = swept.called(comparison["first"]), swept.called(comparison["second"])
            by_pair.setdefault(pair, []).append((value, comparison["metrics"]))
    several = [(pair, at_values[0], at_values[-1]) for pair, at_values in by_pair.items() if len(at_values) > 1]
    items = []
    for (first, second), (start, at_start), (end, at_end) in several:
        for metric in metrics:
            before, after = at_start[metric], at_end[metric]
            if before["interval"] is None or after["interval"] is None:
                continue
            change = "they overlap: no change is shown"
            if sentences.apart(before["interval"], after["interval"]):
                change = "the intervals, not adjusted for their number, lie apart"
            items.append(
                f"From {share(start)} to {share(end)} {of_what}, {second} minus {first} in {in_a_sentence(metric)} "
                f"goes from {difference(before['difference'], before['interval'], metric)} to "
                f"{difference(after['difference'], after['interval'], metric)}; {change}."
            )
    return items


def curves(
    summary: dict, swept: Sweep, along: str, name: str, scale: Callable[[float], float] = float
) -> Figure | None:
    """AUROC on the test part and AUROC's gap over the shares, a line a model; None of a single share."""
    if len(swept.values) < 2:
        return None
    places, ticks = [scale(value) for value in swept.values], [share(value) for value in swept.values]
    shift = 0.012 * (max(places) - min(places))
    blocks = {
        label(line): [summary["models"].get(models.get(value)) for value in swept.values]
        for line, models in swept.lines.items()
    }
    gaps = {line: [block and block["gap"] for block in of_line] for line, of_line in blocks.items()}
    panels = [
        figures.Panel(blocks, "test", places, (), ("", "AUROC, test part"), None, shift),
        figures.Panel(gaps, "gap", places, ticks, (along, "gap in AUROC"), 0, shift),
    ]
    words = {
        line: [
            f"{tick} {with_interval(block, 'test', 'auroc')}, gap {gap.cell(block['gap'], 'auroc')}"
            for tick, block in zip(ticks, of_line, strict=True)
            if block
        ]
        for line, of_line in blocks.items()
    }
    return Figure(
        name,
        figures.panels(panels, 2.6, name, {"sharex": True}),
        f"AUROC and its gap by {along}",
        f"{'; '.join(f'{line} ' + ', '.join(of_line) for line, of_line in words.items())}.",
        "AUROC on the test part, and its gap between training and validation, with 95 % intervals.",
    )
