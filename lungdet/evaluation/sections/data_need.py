"""Need for data: how results, and the gap between training and validation, change with the training patients."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.sections import gap, history
from lungdet.evaluation.sections.choice import advised
from lungdet.evaluation.sections.comparability import TRAINED_ON
from lungdet.evaluation.sections.contract import Section, Study, Unmeasured, judged_by
from lungdet.page import figures, sentences
from lungdet.page.document import Columns, Details, Figure, Items, Table, Text
from lungdet.page.wording import difference, in_a_sentence, label, metric_name, with_interval

Value = float | tuple[str, ...] | None
"""What a setting is set to; None: as the data has it."""


class Sweep(NamedTuple):
    """Models that differ in one setting: its values in order, and each line's model at those it has.

    `unnamed` are the settings that lines are not named by: this one, and the others where all models have them as
    usual.
    """

    values: list[Value]
    lines: dict[Model, dict[Value, Model]]
    unnamed: tuple[str, ...]

    def line(self, model: Model) -> Model:
        """A model without the settings that it is not named by."""
        return model.without([f"data.{key}" for key in self.unnamed])

    def called(self, model: Model) -> str:
        """A model as a text calls it that has said what the setting is."""
        return label(self.line(model))

    @property
    def varies(self) -> bool:
        """Whether there is anything to compare."""
        return len(self.values) > 1

    @property
    def cells(self) -> list[tuple[Value, Model, Model | None]]:
        """Value by value every line, with its model there or None where it was not run."""
        return [(value, line, models.get(value)) for value in self.values for line, models in self.lines.items()]

    def at(self, value: Value, comparisons: Sequence[dict]) -> list[dict]:
        """The comparisons of models that were both trained so."""
        models = {line[value] for line in self.lines.values() if value in line}
        return [comparison for comparison in comparisons if {comparison["first"], comparison["second"]} <= models]


def sweep(summary: dict, key: str) -> Sweep:
    """The models by a setting of `TRAINED_ON`: with the others as usual, or all if that leaves none to compare."""
    models = {model: block["settings"] for model, block in summary["models"].items()}
    usual_settings = {setting: usual for setting, usual in TRAINED_ON.items() if setting != key}
    as_usual = {
        model: settings
        for model, settings in models.items()
        if all(settings.get(setting, usual) == usual for setting, usual in usual_settings.items())
    }
    few = len({_value(settings, key) for settings in as_usual.values()}) < 2
    swept = Sweep([], {}, (key,) if few else tuple(TRAINED_ON))
    for model, settings in (models if few else as_usual).items():
        value, line = _value(settings, key), swept.line(model)
        swept.lines.setdefault(model if value in swept.lines.get(line, {}) else line, {})[value] = model
    values = {value for line in swept.lines.values() for value in line}
    swept.values.extend([*sorted(values - {None}), *values & {None}])
    return swept


def tell(summary: dict) -> list:
    """Learning curves where the runs differ in their share of the training patients."""
    swept = sweep(summary, "train_fraction")
    if not swept.varies:
        return []
    least, measures = swept.values[0], judged_by(summary)
    items = quoted_at_each(summary, swept, measures, lambda value: f"With {share(value)} of the training patients")
    verdict = gap.claim(swept.at(least, summary["gap_comparisons"]), f"on little data ({share(least)} of the patients)")
    columns = [
        *[metric_name(metric) for metric in measures],
        *[f"Gap in {in_a_sentence(metric)}" for metric in measures],
    ]
    rows = [
        [share(value), trained_on(summary, name), label(line), *_cells(summary, name, measures)]
        for value, line, name in swept.cells
    ]
    notes = [
        "Results on the test part at threshold 0.5, which is the same for all; a smaller share's patients are among a "
        f"larger one's. {gap.HOW}",
        *missing(rows),
    ]
    places, ticks = (
        {value: math.log10(value) for value in swept.values},
        {value: share(value) for value in swept.values},
    )
    words = [Text(verdict)] if verdict else []
    words += [Items(items + trends(summary, swept, measures, "of the training patients"))] if items else []
    picture = curves(summary, swept, places, ticks, "share of the training patients", "learning-curves")
    table = Table(["Training patients", "Images", "Model", *columns], rows, 3, notes)
    return [Columns([[picture], words]), Details("The numbers, with intervals", [table])]


def show(summary: dict, study: Study) -> list:
    """Losses epoch by epoch, and the gap between training and validation, which learning curves have already."""
    words = [] if sweep(summary, "train_fraction").varies else gap.tell(summary)
    picture = history.pictures(study)
    return [Columns([picture, words])] if picture and words else [*picture, *words]


def advice(summary: dict) -> list[list[str]]:
    """Which model for which amount of training data."""
    swept, based = sweep(summary, "train_fraction"), "[Need for data](#need-for-data)"
    if swept.varies:
        return [
            [f"Training on {share(value)} of the patients{_images(summary, swept, value)}", advice_there, based]
            for value, advice_there in advised_at_each(summary, swept, judged_by(summary))
        ]
    if any(sweep(summary, key).varies for key in ("train_prevalence", "train_on")):
        return []
    advice_there = advised(summary, summary["comparisons"], judged_by(summary))
    situation = f"As much training data as here{_images(summary, swept, swept.values[0])}"
    return [[situation, advice_there, "[Differences](#differences)"]]


def unmeasured(summary: dict) -> list[Unmeasured]:
    """Learning curves, the gap and the losses, as far as the runs have none."""
    varies = sweep(summary, "train_fraction").varies
    curve = [] if varies else [measured_by("learning_curve", "How results change with the number of training patients")]
    return [*curve, *gap.unmeasured(summary)]


SECTION = Section(
    lambda summary: "Need for data and overfitting" if sweep(summary, "train_fraction").varies else "Overfitting",
    "need-for-data",
    measure=gap.measure,
    tell=tell,
    show=show,
    advice=advice,
    unmeasured=unmeasured,
)


def advised_at_each(summary: dict, swept: Sweep, metrics: Sequence[str]) -> list[tuple[Value, str]]:
    """At each value which model is advised, and why."""
    return [
        (value, advised(summary, swept.at(value, summary["comparisons"]), metrics, swept.called))
        for value in swept.values
    ]


def measured_by(experiment: str, question: str) -> Unmeasured:
    """What an experiment measures."""
    return Unmeasured(question, f"`python train.py experiment={experiment} data.root=DIR`")


def share(value: float) -> str:
    """A share that was set, as it was set: `10 %`."""
    return f"{100 * value:.4g} %"


def trained_on(summary: dict, model: str | None) -> str:
    """The number of a model's training images; empty where there is none."""
    return "" if model is None else f"{summary['models'][model]['settings']['train']['images']:,}"


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
    """How two models' difference changes from the first value to the last that both were run at."""
    by_pair: dict[tuple[str, str], list[tuple[Value, dict]]] = {}
    for value in swept.values:
        for comparison in swept.at(value, summary["comparisons"]):
            by_pair.setdefault((swept.called(comparison["first"]), swept.called(comparison["second"])), []).append(
                (value, comparison)
            )
    items = []
    several = [(pair, at_values) for pair, at_values in by_pair.items() if len(at_values) > 1]
    for (first, second), ((start, at_start), *_, (end, at_end)) in several:
        for metric in metrics:
            before, after = (comparison["metrics"][metric] for comparison in (at_start, at_end))
            if before["interval"] is None or after["interval"] is None:
                continue
            items.append(
                f"From {share(start)} to {share(end)} {of_what}, {second} minus {first} in {in_a_sentence(metric)} "
                f"goes from {difference(before['difference'], before['interval'], metric)} to "
                f"{difference(after['difference'], after['interval'], metric)}; "
                + (
                    "the intervals, not adjusted for their number, lie apart."
                    if sentences.apart(before["interval"], after["interval"])
                    else "they overlap: no change is shown."
                )
            )
    return items


def missing(rows: Sequence[Sequence[str]]) -> list[str]:
    """A note where a table lacks a run."""
    lacking = any("not run" in row for row in rows)
    return ["Not run: no finished run is among those evaluated; see [Runs](#runs)."] if lacking else []


def curves(
    summary: dict, swept: Sweep, places: Mapping[Value, float], ticks: Mapping[Value, str], along: str, name: str
) -> Figure:
    """AUROC on the test part and AUROC's gap over a setting's values that have a place, a line a model."""
    values = [value for value in swept.values if value in places]
    along_x, labels = [places[value] for value in values], [ticks[value] for value in values]
    shift = 0.012 * (max(places.values()) - min(places.values()))
    blocks = {
        label(line): [summary["models"].get(models.get(value)) for value in values]
        for line, models in swept.lines.items()
    }
    gaps = {line: [block and block["gap"] for block in of_line] for line, of_line in blocks.items()}
    panels = [
        figures.Panel(blocks, "test", along_x, (), ("", "AUROC, test part"), None, shift),
        figures.Panel(gaps, "gap", along_x, labels, (along, "gap in AUROC"), 0, shift),
    ]
    element = figures.panels(panels, 2.6, name, {"sharex": True})
    words = "; ".join(
        f"{label(line)} "
        + ", ".join(
            f"{ticks[value]} {with_interval(summary['models'][models[value]], 'test', 'auroc')}, gap "
            f"{gap.cell(summary['models'][models[value]]['gap'], 'auroc')}"
            for value in values
            if value in models
        )
        for line, models in swept.lines.items()
    )
    return Figure(
        name,
        element,
        f"AUROC and its gap by {along}",
        f"{words}.",
        "AUROC on the test part, and its gap between training and validation, with 95 % intervals.",
    )


def _value(settings: dict, key: str) -> Value:
    return tuple(settings[key]) if isinstance(settings[key], list) else settings[key]


def _cells(summary: dict, model: str | None, metrics: Sequence[str]) -> list[str]:
    if model is None:
        return ["not run"] * 2 * len(metrics)
    block = summary["models"][model]
    tested = [with_interval(block, "test", metric) for metric in metrics]
    return tested + [gap.cell(block["gap"], metric) for metric in metrics]


def _images(summary: dict, swept: Sweep, value: Value) -> str:
    models = (line[value] for line in swept.lines.values() if value in line)
    images = trained_on(summary, next(models, None))
    return f" ({images} images)" if images else ""
