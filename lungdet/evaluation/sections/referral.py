"""Referral: how accurate a model is on the images that it is surest of, if a reader takes the others."""

from collections.abc import Sequence

import pandas as pd

from lungdet.evaluation.sections import confusion
from lungdet.evaluation.sections.contract import Section
from lungdet.evaluation.statistics import selective
from lungdet.evaluation.statistics.measure import Cuts
from lungdet.evaluation.statistics.selective import KEPT, METRICS
from lungdet.page import figures
from lungdet.page.document import Columns, Details, Figure, Table, items
from lungdet.page.sentences import scope_of, with_verdict, without_interval
from lungdet.page.wording import figure, label, listed, metric_name, percent, points, with_interval

QUOTED = 80


def of_model(tables: Sequence[pd.DataFrame], labels: Sequence[str], cuts: Sequence[Cuts], draws: int) -> dict:
    """What a model reaches on the images that it keeps (`selective.of_model`), and its confusion matrices by label."""
    matrices = {name: confusion.counts(tables, name, cuts) for name in labels}
    return {"kept": selective.of_model(tables, labels, draws), "confusion": matrices}


def tell(summary: dict) -> list:
    """What referring a fifth gains, the curve, and a table of what is reached on the images that are kept."""
    blocks = {model: block["referral"] for model, block in summary["models"].items()}
    sentences = items([sentence(model, block) for model, block in summary["models"].items()], "model")
    reached = {m: b for m, b in blocks.items() if b["kept"]["100"]["test"]["accuracy"] is not None}
    if not reached:
        return sentences
    rows = [
        [label(model), str(per_cent), *[with_interval(block["kept"][str(per_cent)], "test", m) for m in METRICS]]
        for model, block in reached.items()
        for per_cent in KEPT
    ]
    sorting = "" if summary["task"] == "abnormal" else " for each finding by itself; means over findings"
    notes = [
        f"Per cent at threshold 0.5, of the images whose probability is furthest from it{sorting}; of equally sure "
        "images all are kept. An undefined recall or specificity: no image of that class is kept. What the reader gets "
        "wrong is not counted."
    ]
    table = Table(["Model", "Kept, %", *[metric_name(metric) for metric in METRICS]], rows, 2, notes)
    words = [*sentences, Details("At each share that is kept", [table])]
    return [Columns([[_picture(reached)], words])] if len(reached) <= figures.MOST_LINES else words


SECTION = Section(
    "What to refer to a reader",
    "referral",
    measure=lambda study: study.of_each("referral", lambda model: of_model(*study.tested(model))),
    tell=tell,
)


def sentence(model: str, block: dict) -> str:
    """What referring the least certain images to a reader gains, as a person quotes it."""
    kept = block["referral"]["kept"]
    all_images, on_kept = (kept[str(per_cent)]["test"]["accuracy"] for per_cent in (100, QUOTED))
    if on_kept is None:
        return f"{label(model)}: no accuracy is defined ({kept[str(QUOTED)]['undefined']['test']['accuracy']})."
    if (referred := kept[str(QUOTED)]["referred"]) == 0:
        return f"{label(model)}: it is equally unsure of more than {100 - QUOTED} % of the images, so none is referred."
    gain, ends = (kept[str(QUOTED)][key]["gain"] for key in ("test", "test_interval"))
    size, unit = points("accuracy", abs(gain))
    clause = f"{label(model)}: referring the {100 * referred:.2g} % of images that it is least sure of to a reader"
    if float(size) == 0:
        clause += f" leaves accuracy on the rest at {percent(all_images)}"
    else:
        changes = "raises" if gain > 0 else "lowers"
        clause += f" {changes} accuracy on the rest from {percent(all_images)} to {percent(on_kept)}, by {size}{unit}"
    if ends is None:
        return without_interval(clause, kept[str(QUOTED)]["undefined"]["test_interval"]["gain"], "gain")
    scope = scope_of(block["seeds"])
    verdict = (
        f"a gain is shown{scope}" if ends[0] > 0 else f"a loss is shown{scope}" if ends[1] < 0 else "no gain is shown"
    )
    return with_verdict(clause, "accuracy", ends, verdict)


def _picture(blocks: dict[str, dict]) -> Figure:
    element = figures.referral({label(model): list(block["kept"].values()) for model, block in blocks.items()}, KEPT)
    words = listed(
        {
            label(model): [
                f"{figure('accuracy', block['kept'][str(per_cent)]['test']['accuracy'])} on {per_cent} %"
                for per_cent in KEPT
            ]
            for model, block in blocks.items()
        }
    )
    return Figure(
        "referral",
        element,
        "Accuracy on the images that a model is surest of",
        f"In per cent: {words}.",
        "At threshold 0.5, the others going to a reader, with 95 % intervals.",
    )
