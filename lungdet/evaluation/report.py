"""The report: `metrics.json`, `report.md` and a self-contained `report.html`, and the table on the console."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text as RichText

from lungdet.evaluation.answer import answer, caveats
from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.sections import (
    by_finding,
    by_part,
    calibrated,
    choice,
    claim,
    data_need,
    differences,
    earlier_visits,
    efficiency,
    ensemble,
    flattery,
    generalisation,
    headline,
    history,
    image_quality,
    imbalance,
    mistakes,
    provenance,
    recurrence,
    referral,
    search,
    sensitivity,
    shortcuts,
    subgroups,
)
from lungdet.machine.writing import write_text
from lungdet.page import document
from lungdet.page.document import Document, Items, Section, Table
from lungdet.page.wording import join, label


def write(summary: dict, models: Mapping[str, Sequence[Replicate]], out: Path) -> Document:
    """Writes the report into the folder `out` and returns it."""
    out.mkdir(parents=True, exist_ok=True)
    written = build(summary, models)
    numbers = {
        "answer": document.plain(written.answer),
        "caveats": [document.plain(one) for one in caveats(summary)],
    } | summary
    files = {
        "metrics.json": json.dumps(numbers, indent=2, allow_nan=False) + "\n",
        "report.md": document.markdown(written),
        "report.html": document.html(written),
    }
    for name, text in files.items():
        write_text(out / name, text)
    document.write_figures(written, out)
    document.write_tables(written, out)
    return written


def build(summary: dict, models: Mapping[str, Sequence[Replicate]]) -> Document:
    """The report's content, section by section."""
    datasets, binary = summary["data"]["test_datasets"], summary["task"] == "abnormal"
    picked = flattery.section(summary)
    content = [
        Section("The study's table" if binary else "Mean over findings", [headline.study_table(summary, None)]),
        Section("What to keep in mind", [Items(caveats(summary))]),
        Section("Differences between the models", differences.section(summary), "differences"),
        Section("The mean of both models", ensemble.section(summary), "ensemble"),
        Section("Cost", [*efficiency.section(summary), provenance.cost_table(summary)]),
        Section("Generalisation", generalisation.section(summary)),
        Section(
            "Need for data and overfitting", [*data_need.section(summary), *history.section(models)], "need-for-data"
        ),
        Section("Imbalance", imbalance.section(summary)),
        Section("Image quality", image_quality.section(summary), "image-quality"),
        Section("Is it the recurrence?", recurrence.section(summary), "recurrence"),
        Section("Series of images", earlier_visits.section(summary), "series"),
        Section("Which model when", choice.section(summary), "choice"),
        Section("Figures", headline.pictures(summary, models), "curves"),
        Section("Further metrics", [*headline.further_tables(summary), referral.matrix(summary)]),
        Section("Calibration", calibrated.section(summary)),
        *([Section("What a threshold picked on test would have claimed", picked, "thresholds")] if picked else []),
        Section("What the label can be guessed from without reading the lungs", shortcuts.section(summary)),
        Section("Sensitivity by finding", sensitivity.section(summary))
        if binary
        else Section("Finding by finding", by_finding.section(summary)),
        Section("Subgroups", subgroups.section(summary)),
        *([Section(by_part.title(summary), by_part.section(summary))] if summary["parts"] else []),
        *[Section(f"{name} alone", headline.one_dataset(summary, name)) for name in datasets if len(datasets) > 1],
        Section("What to refer to a reader", referral.section(summary), "referral"),
        Section("The most confident mistakes", mistakes.section(models, summary), "mistakes"),
        *([Section("The search for hyper-parameters", search.section(summary), "search")] if summary["search"] else []),
        Section("Data and split", provenance.data_and_split(summary)),
        Section("Runs", provenance.list_of_runs(summary)),
    ]
    content.append(claim.section(content, summary))
    kind = "external test" if summary["data"]["external_test"] else "evaluation"
    names = dict.fromkeys(label(name.split(" ")[0]) for name in models)  # what tells variants apart is in the tables
    what = "normal or abnormal" if binary else "findings"
    title = f"Chest radiographs, {what}: {kind} of {join(list(names))}"
    return Document(title, answer(summary), content)


def show(written: Document, out: Path, console: Console | None = None) -> None:
    """Prints the answer, the study's table and where the report is; without colour or cut when not in a terminal."""
    console = console or Console()
    if not console.is_terminal:  # a file has no width: nothing is folded or cut
        console = Console(file=console.file, width=1000, color_system=None)
    [table] = [block for block in written.sections[0].blocks if isinstance(block, Table)]
    shown = RichTable(box=SIMPLE, pad_edge=False)
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if number < table.left else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*[RichText(document.plain(cell)) for cell in row])
    console.print(shown)
    for text in (*table.notes, written.answer, f"report: {out / 'report.html'}"):
        console.print(RichText(document.plain(text)), soft_wrap=True)
