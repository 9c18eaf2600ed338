"""The report: `metrics.json`, `report.md` and a self-contained `report.html`, and the table on the console."""

import json
from pathlib import Path

from rich.console import Console

from lungdet.evaluation.answer import answer
from lungdet.evaluation.caveats import caveats
from lungdet.evaluation.sections import SECTIONS, choice, claim
from lungdet.evaluation.sections.contract import Study
from lungdet.machine.writing import write_text
from lungdet.page import console as printing
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
    console = printing.opened(console)
    [table] = [block for block in written.sections[0].blocks if isinstance(block, Table)]
    printing.show_table(console, table)
    for text in (written.answer, f"report: {out / 'report.html'}"):
        printing.say(console, text)
