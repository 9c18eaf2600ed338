"""The report: `metrics.json`, `report.md` and a self-contained `report.html`, and the table on the console."""

import json
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text as RichText

from lungdet.evaluation.answer import answer
from lungdet.evaluation.caveats import caveats
from lungdet.evaluation.sections import SECTIONS, choice, claim
from lungdet.evaluation.sections.contract import Study
from lungdet.machine.writing import write_text
from lungdet.page import document
from lungdet.page.document import Document, Table
from lungdet.page.wording import join, label


def write(summary: dict, study: Study) -> Document:
    """Writes the report into the study's folder and returns it."""
    out = study.out
    out.mkdir(parents=True, exist_ok=True)
    written = build(summary, study)
    numbers = {
        "answer": document.plain(written.answer),
        "caveats": [document.plain(caveat) for caveat in caveats(summary)],
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


def build(summary: dict, study: Study) -> Document:
    """The report's content, section by section, and the checklist."""
    following = summary | {"caveats": caveats(summary), "advice": advice(summary)}
    sections = [written for section in SECTIONS for written in section.written(following, study)]
    kind = "external test" if summary["data"]["external_test"] else "evaluation"
    names = dict.fromkeys(label(name.split(" ")[0]) for name in study.models)  # what tells variants apart is in tables
    task = "normal or abnormal" if summary["task"] == "abnormal" else "findings"
    title = f"Chest radiographs, {task}: {kind} of {join(list(names))}"
    return Document(title, answer(summary), [*sections, claim.appendix(sections, summary)])


def advice(summary: dict) -> list[list[str]]:
    """What every section says of the models that one would choose among."""
    candidates = choice.without_controls(summary)
    return [row for section in SECTIONS for row in section.advice(candidates)]


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
