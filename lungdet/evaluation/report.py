"""The report: `metrics.json`, `report.md`, a self-contained `report.html`, a model card, and what is printed."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from lungdet.evaluation import card
from lungdet.evaluation.answer import answer
from lungdet.evaluation.caveats import caveats
from lungdet.evaluation.costs import costs
from lungdet.evaluation.explanations.explainer import Explainer
from lungdet.evaluation.following import following
from lungdet.evaluation.gathering.families import Family
from lungdet.evaluation.gathering.models import Model, kinds
from lungdet.evaluation.gathering.peers import Tested
from lungdet.evaluation.gathering.results import Skipped
from lungdet.evaluation.sections import SECTIONS, choice, claim
from lungdet.evaluation.sections.contract import Section, Study
from lungdet.evaluation.summary import study_of, summarise
from lungdet.machine.writing import write_text
from lungdet.page import console as printing
from lungdet.page.document import Block, Document, Table, Text, flat
from lungdet.page.files import write_figures, write_tables
from lungdet.page.html import html
from lungdet.page.markdown import markdown
from lungdet.page.markup import plain
from lungdet.page.wording import join, label, number

log = logging.getLogger(__name__)


def report_on(
    family: Family,
    models: Mapping[Model, Sequence[Tested]],
    external: str | None,
    explainer: Explainer | None,
    config: DictConfig,
    words: Sequence[str],
) -> tuple[Document, dict]:
    """Compares models that were tested on the same images, writes the report and prints what it comes to.

    Args:
        family: the runs, see `Family.compared`.
        models: theirs, then other systems.
        external: what other data was scored, or None for the runs' own test part.
        explainer: gives heat maps, or None where they were not asked for.
        config: see `conf/evaluate.yaml`.
        words: that evaluate.py was given.

    Returns:
        The report, and what was measured.

    Raises:
        InputError: nothing can be written there, or what is asked for cannot be measured.
    """
    if (family.out / "report.html").exists():  # of another threshold, say
        log.info("%s: the report that is there is going to be replaced; out=FOLDER keeps it", family.out)
    begin(models, family.skipped, external)
    measured = costs.measure(kinds(models), config.trust) if config.efficiency else None
    rule, at = config.threshold.rule, config.threshold.at
    study = study_of(models, family.skipped, rule, at, family.out, config.draws, external, measured, explainer)
    summary = summarise(study)
    written = write(summary, study)
    show(written, following(summary, study.results, words), family.out)
    return written, summary


def write(summary: dict, study: Study) -> Document:
    """Writes the report into the study's folder and returns it."""
    out = study.out
    out.mkdir(parents=True, exist_ok=True)
    written = build(summary, study)
    checklist = claim.checklist(written, summary)
    numbers = {
        "answer": plain(written.answer),
        "caveats": [plain(caveat) for caveat in caveats(summary)],
    } | summary
    files = {
        "metrics.json": json.dumps(numbers, indent=2, allow_nan=False) + "\n",
        "report.md": markdown(written),
        "report.html": html(written),
        "claim.md": markdown(checklist),
        "claim.html": html(checklist),
    }
    for name, text in files.items():
        write_text(out / name, text)
    write_figures(written, out)
    write_tables(written, out)
    for folder in card.places(study):
        try:
            write_text(folder / card.NAME, card.card(written, summary))
        except OSError as error:  # a run that is anybody's to read and nobody's to write
            log.warning("%s: the model card could not be written there (%s)", folder, error)
    return written


def build(summary: dict, study: Study) -> Document:
    """The report's content, section by section, and what was not measured."""
    following = summary | {"caveats": caveats(summary), "advice": advice(summary)}
    sections = [written for section in (*SECTIONS, NOT_MEASURED) if (written := section.written(following, study))]
    kind = "external test" if summary["data"]["external_test"] else "evaluation"
    # What tells variants apart stands in the tables.
    names = dict.fromkeys(label(Model(model.base, {}, model.backbone)) for model in study.models)
    task = "normal or abnormal" if summary["task"] == "abnormal" else "findings"
    title = f"Chest radiographs, {task}: {kind} of {join(list(names))}"
    return Document(title, answer(summary), sections, beside={claim.PAGE: claim.TITLE})


def advice(summary: dict) -> list[list[str]]:
    """What every section says of the models that one would choose among."""
    candidates = choice.without_controls(summary)
    return [row for section in SECTIONS for row in section.advice(candidates)]


def unmeasured(summary: dict) -> list[Block]:
    """What the runs at hand do not tell, each with the command that measures it; and where the checklist is."""
    rows = [[question, remedy] for section in SECTIONS for question, remedy in section.unmeasured(summary)]
    together = "Take new runs together with these: `python evaluate.py 'runs=[A,B]'`."
    checklist = Text(f"The [{claim.TITLE}]({claim.PAGE}) is a page of its own.")
    return [*([Table(["What these runs do not tell", "What would"], rows, 2, [together])] if rows else []), checklist]


NOT_MEASURED = Section("Not measured", "not-measured", tell=unmeasured)


def begin(
    models: Mapping[Model, Sequence[Tested]],
    skipped: Sequence[Skipped],
    external: str | None,
) -> None:
    """Logs what is evaluated: which runs, which images."""
    for run in skipped:
        if run.elsewhere is None:
            log.warning("not evaluated: %s: %s", run.folder, run.reason)
    for model, replicates in models.items():
        if not replicates[0].results:
            [peer] = replicates
            more = f", {number(peer.facts.others, 'row')} of others not read" if peer.facts.others else ""
            log.info("%s: %s, images told %s%s", label(model), peer.path, peer.facts.by, more)
            continue
        runs, seeds = (
            sum(len(replicate.parts) for replicate in replicates),
            ", ".join(str(replicate.seed) for replicate in replicates),
        )
        parts = f" on {', '.join(replicates[0].parts)}" if len(replicates[0].parts) > 1 else ""
        log.info("%s: %s, seed %s%s", label(model), number(runs, "run"), seeds, parts)
    replicate = next(iter(models.values()))[0]
    images, patients = number(len(replicate.test), "image"), replicate.test["patient_id"].nunique()
    scope = f"other data, {external}" if external else "the test part"
    if replicate.patients_known(external is not None):
        log.info("tested on %s: %s of %s", scope, images, number(patients, "patient"))
    else:
        log.info("tested on %s: %s", scope, images)
        log.warning("no patient_id says whose an image is: each counts as a patient, and results may flatter")


def show(written: Document, commands: Sequence[tuple[str, str]], out: Path) -> None:
    """Prints the table, the answer, where the report is and how to go on; in colour and folded in a terminal alone."""
    console = printing.opened()
    results = written.sections[0]
    table = next(block for block in flat(results.blocks) if isinstance(block, Table))
    printing.show_table(console, table, results.title)
    for text in (written.answer, f"report: {out / 'report.html'}"):
        printing.say(console, text)
    printing.show_commands(console, commands)
