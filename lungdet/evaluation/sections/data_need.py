"""Need for data: how results, and the gap between training and validation, change with the training patients."""

import math

from lungdet.evaluation.sections import gap, history, shares
from lungdet.evaluation.sections.choice import advised
from lungdet.evaluation.sections.contract import Section, Study, Unmeasured, judged_by
from lungdet.evaluation.sections.shares import share
from lungdet.evaluation.sections.sweep import Sweep, Value, measured_by, sweep
from lungdet.page.document import Columns
from lungdet.page.wording import in_a_sentence, metric_name, with_interval


def tell(summary: dict) -> list:
    """Learning curves where the runs differ in their share of the training patients."""
    swept = sweep(summary, "train_fraction")
    if not swept.varies:
        return []
    least, measures = swept.values[0], judged_by(summary)
    verdict = gap.claim(swept.at(least, summary["gap_comparisons"]), f"on little data ({share(least)} of the patients)")
    items = shares.quoted_at_each(summary, swept, measures, lambda at: f"With {share(at)} of the training patients")
    items += shares.trends(summary, swept, measures, "of the training patients")
    gaps = [f"Gap in {in_a_sentence(metric)}" for metric in measures]
    note = (
        "Results on the test part at threshold 0.5, which is the same for all; a smaller share's patients are among a "
        f"larger one's. {gap.HOW}"
    )

    def cells(block: dict) -> list[str]:
        tested = [with_interval(block, "test", metric) for metric in measures]
        return [*tested, *[gap.cell(block["gap"], metric) for metric in measures]]

    picture = shares.curves(summary, swept, "share of the training patients", "learning-curves", math.log10)
    columns = ["Training patients", *map(metric_name, measures), *gaps]
    table = shares.numbers(summary, swept, lambda value, _: share(value), columns, cells, [note])
    return shares.layout(verdict, items, picture, table)


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
            for value, advice_there in shares.advised_at_each(summary, swept, judged_by(summary))
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


def _images(summary: dict, swept: Sweep, value: Value) -> str:
    block = next(summary["models"][models[value]] for models in swept.lines.values() if value in models)
    return f" ({block['settings']['train']['images']:,} images)"
