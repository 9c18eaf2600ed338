"""The checklist's items lead to sections that are there, or say that they are not reported and what is lacking."""

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import numpy as np
import pytest

from lungdet.evaluation.sections import claim
from lungdet.page.document import Document
from lungdet.page.html import html
from lungdet.page.markdown import markdown
from tests.fake_runs import evaluate, fold_of, predictions, two_runs, without_source, write_run

REPORTS = {
    "binary": lambda folder: evaluate(two_runs(folder)),
    "pooled": lambda folder: alone(folder, {"chestxray14": 60, "montgomery": 20, "shenzhen": 30}),
    "findings": lambda folder: alone(folder, {"chestxray14": 68, "shenzhen": 20}, task="findings"),
    "folds": lambda folder: evaluate(parts(folder, [fold_of(fold, 2) for fold in range(2)], models=("cnn_lstm",))),
    "sources": lambda folder: evaluate(parts(folder, [without_source("montgomery"), without_source("shenzhen")])),
    "external": lambda folder: evaluate(two_runs(folder, test=predictions({"shenzhen": 30})), external="shenzhen"),
    "user's table": lambda folder: alone(folder, {"clinic [A]": 40, "clinic [B]": 40}),
}


def alone(folder, datasets, **more):
    return evaluate(write_run(folder / "run", datasets=datasets, **more), folder / "report")


def parts(folder, splits, models=("cnn", "cnn_lstm")):
    for model in models:
        for number, split in enumerate(splits):
            dataset = split.get("held_out", "chestxray14")
            test = predictions({dataset: 30}, seed=50 + number)
            sources = {"chestxray14": 40, "montgomery": 20, "shenzhen": 20}
            write_run(folder / f"{model}_{number}", model, 0, sources, test=test, split=split)
    return folder


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[dict, Document]]:
    """Each kind's summary and document, made once."""
    return cache(lambda kind: REPORTS[kind](tmp_path_factory.mktemp("report"))[:2])


def answers(written: Document, numbers: dict) -> dict[str, str]:
    """Where the checklist says that each item is answered."""
    return {asks: where for _, asks, where in rows(claim.checklist(written, numbers))}


def rows(checklist: Document) -> list[list[str]]:
    [table] = checklist.sections[0].blocks
    return table.rows


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.links = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if tag == "a" else []


def targets(text: str) -> list[str]:
    """What can be linked to in Markdown, as GitHub makes it of headings, and the anchors written out."""
    found = re.findall(r'<a id="([^"]+)">', text)
    for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        kept = "".join(c for c in title.lower() if c.isalnum() or c in "_- ").replace(" ", "-")
        again = sum(re.fullmatch(rf"{re.escape(kept)}(-\d+)?", one) is not None for one in found)
        found.append(f"{kept}-{again}" if kept in found else kept)
    return found


@pytest.mark.parametrize("kind", REPORTS)
def test_every_link_of_a_real_report_and_its_checklist_leads_somewhere(kind, reports):
    numbers, written = reports(kind)
    checklist = claim.checklist(written, numbers)
    page, text = Page(html(written)), markdown(written)
    assert len(page.ids) == len(set(page.ids))
    here = [link.removeprefix("#") for link in page.links if link.startswith("#")]
    there = Page(html(checklist)).links
    assert {link for link in page.links if not link.startswith("#")} == {"claim.html"}
    assert set(here) | {link.removeprefix("report.html#") for link in there if "#" in link} <= set(page.ids)
    assert {link.partition("#")[0] for link in there} == {"report.html"}
    assert len(there) > 20
    in_text = re.findall(r"\]\(#([^)]+)\)", text)
    assert set(in_text) <= set(targets(text))
    assert len(in_text) == len(here)
    assert {link.removeprefix("report.md#") for link in re.findall(r"\]\(([^)]+#[^)]+)\)", markdown(checklist))} <= {
        *targets(text)
    }


@pytest.mark.parametrize("kind", REPORTS)
def test_all_items_stand_there_and_each_has_a_link_or_says_that_it_is_not_reported(kind, reports):
    numbers, written = reports(kind)
    checklist = claim.checklist(written, numbers)
    assert [row[0] for row in rows(checklist)] == [str(number) for number in range(1, 45)]
    for number, asks, where in rows(checklist):
        assert asks
        assert ("](report.html#" in where) != where.startswith("not reported"), number
        assert where.startswith("[") or "; to add: " in where, number
    unreported = sum(where.startswith("not reported") for _, _, where in rows(checklist))
    assert f"The other {unreported} are not reported" in checklist.answer
    assert f"Of 44 items {44 - unreported} lead" in checklist.answer
    incomplete = sum("; missing: " in where for _, _, where in rows(checklist))
    assert f"{incomplete} of them with something missing" in checklist.answer


def test_what_no_report_can_know_is_not_reported(reports):
    numbers, written = reports("binary")
    where = answers(written, numbers)
    for asks in ("Funding and the funders' role", "De-identification", "Agreement of readers", "Aims and hypotheses"):
        assert where[asks].startswith("not reported; to add: ")
    assert where["Registration as a clinical trial"] == "not reported; to add: the number, if it was registered."


def test_a_section_that_is_not_in_the_report_is_not_reported(reports):
    numbers, written = reports("binary")
    sections = [section for section in written.sections if section.title != "Data and split"]
    where = answers(replace(written, sections=sections), numbers)
    assert where["How data were divided"] == "not reported."
    assert where["Sources of the data"].startswith("not reported; to add: hospitals")


def test_an_external_test_is_one_only_where_its_source_was_not_learnt_from(reports, tmp_path):
    def same_and_other(numbers, written):
        where = answers(written, numbers)
        return where["Test on data of the same source"], where["Test on data of another source"]

    same, other = same_and_other(*reports("binary"))
    assert same.startswith("[Results at threshold 0.5](report.html#results)")
    assert other.startswith("not reported; to add")
    same, other = same_and_other(*reports("external"))
    assert same.startswith("not reported; to add")
    assert other == "[Results at threshold 0.5](report.html#results), [Data and split](report.html#data-and-split)."
    same, other = same_and_other(*evaluate(write_run(tmp_path / "a"), external="chestxray14")[:2])
    assert other.startswith("not reported")
    same, other = same_and_other(*reports("sources"))
    assert same.startswith("not reported")
    assert other.startswith("[Results at threshold 0.5]")
    restricted = {"datasets": {"chestxray14": 60, "shenzhen": 40}, "config": {"data.train_on": "shenzhen"}}
    same, other = same_and_other(*evaluate(write_run(tmp_path / "b", **restricted))[:2])
    assert same.startswith("[Results at threshold 0.5]")
    assert other.startswith("[Results at threshold 0.5]")
    run = write_run(tmp_path / "c", test=predictions({"shenzhen": 30}))
    same, other = same_and_other(*evaluate(run, external="shenzhen", unsearched=({"run": "X", "resize": "pad"},))[:2])
    assert same.startswith("not reported")
    assert other.startswith("not reported")


def test_intervals_are_reported_where_the_runs_have_them(reports):
    numbers, written = deepcopy(reports("binary"))
    for block in numbers["models"].values():
        block.pop("test_interval", None)
    where = answers(written, numbers)
    assert where["Statistical uncertainty"] == "not reported; to add: intervals and tests."
    assert where["Performance and its uncertainty"].endswith("; missing: intervals.")
    numbers["models"]["cnn"]["test_interval"] = {"accuracy": [0.1, 0.9]}
    where = answers(written, numbers)
    assert "[Differences between the models](report.html#differences)" in where["Statistical uncertainty"]
    assert "missing" not in where["Statistical uncertainty"] + where["Performance and its uncertainty"]


def test_how_labels_came_about_is_unknown_of_a_users_own_table(reports, tmp_path):
    numbers, written, _ = evaluate(write_run(tmp_path / "run", datasets={"clinic": 40}))
    assert answers(written, numbers)["How the reference standard was defined"].startswith("not reported")
    numbers, written = reports("binary")
    where = answers(written, numbers)["How the reference standard was defined"]
    assert where.startswith("[What to keep in mind](report.html#what-to-keep-in-mind)")


def test_a_title_with_brackets_is_still_a_link(reports):
    numbers, written = reports("binary")
    written = replace(
        written, sections=[replace(section, title=f"{section.title} [A]") for section in written.sections]
    )
    assert "[Runs (A)](report.html#runs-a)" in answers(written, numbers)["Software"]


def test_one_class_on_the_test_part_does_not_stop_it(tmp_path):
    table = predictions({"chestxray14": 20}).assign(target_abnormal=np.float32(0))
    numbers, written, _ = evaluate(write_run(tmp_path / "run", test=table))
    assert len(answers(written, numbers)) == 44
