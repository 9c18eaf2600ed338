"""The report: `metrics.json`, `report.md` and a self-contained `report.html`, and the table on the console."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from lungdet.evaluation.answer import answer
from lungdet.evaluation.caveats import caveats
from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.gathering.results import Skipped
from lungdet.evaluation.sections import SECTIONS, choice, claim
from lungdet.evaluation.sections.contract import Study
from lungdet.machine.writing import require_writable, write_text
from lungdet.page import console as printing
from lungdet.page import document
from lungdet.page.document import Document, Table
from lungdet.page.wording import join, label, number

log = logging.getLogger(__name__)


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
    names = dict.fromkeys(label(Model(model.base)) for model in study.models)  # what tells variants apart is in tables
    task = "normal or abnormal" if summary["task"] == "abnormal" else "findings"
    title = f"Chest radiographs, {task}: {kind} of {join(list(names))}"
    return Document(title, answer(summary), [*sections, claim.appendix(sections, summary)])


def advice(summary: dict) -> list[list[str]]:
    """What every section says of the models that one would choose among."""
    candidates = choice.without_controls(summary)
    return [row for section in SECTIONS for row in section.advice(candidates)]


def begin(
    out: Path,
    models: Mapping[Model, Sequence[Replicate]],
    skipped: Sequence[Skipped],
    rule: str,
    at: float | None,
    external: str | None,
) -> None:
    """Makes the report's folder, before hours are spent, and logs what is evaluated: which runs, on how many images.

    Raises:
        OSError: nothing can be written there.
    """
    require_writable(out)
    for run in skipped:
        if run.elsewhere is None:
            log.warning("not evaluated: %s: %s", run.folder, run.reason)
    for model, replicates in models.items():
        runs, seeds = (
            sum(len(replicate.parts) for replicate in replicates),
            ", ".join(str(replicate.seed) for replicate in replicates),
        )
        parts = f" on {', '.join(replicates[0].parts)}" if len(replicates[0].parts) > 1 else ""
        log.info("%s: %s, seed %s%s", label(model), number(runs, "run"), seeds, parts)
    replicate = next(iter(models.values()))[0]
    images, patients = number(len(replicate.test), "image"), replicate.test["patient_id"].nunique()
    where = f"other data, {external}" if external else "the test part"
    if replicate.patients_known(external is not None):
        log.info("tested on %s: %s of %s", where, images, number(patients, "patient"))
    else:
        log.info("tested on %s: %s", where, images)
        log.warning("no patient_id says whose an image is: each counts as a patient, and results may flatter")
    named = rule if at is None else f"{rule} {at}"
    log.info("thresholds: rule %s on validation predictions, kept as thresholds.json in each run", named)


def show(written: Document, out: Path, console: Console | None = None) -> None:
    """Prints the answer, the study's table and where the report is; without colour or cut when not in a terminal."""
    console = printing.opened(console)
    [table] = [block for block in written.sections[0].blocks if isinstance(block, Table)]
    printing.show_table(console, table)
    for text in (written.answer, f"report: {out / 'report.html'}"):
        printing.say(console, text)
