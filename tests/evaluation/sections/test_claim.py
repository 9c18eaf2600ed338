"""The checklist's items lead to sections that are there, or say that they are not reported and what is lacking."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from lungdet.evaluation.sections import claim
from lungdet.page.document import Section, Table, Text, html, markdown
from tests.fake_runs import evaluate, fold_of, predictions, two_runs, without_source, write_run

REPORTS = {
    "binary": lambda folder: evaluate(two_runs(folder, seeds=(0, 1))),
    "pooled": lambda folder: evaluate(two_runs(folder, {"chestxray14": 60, "montgomery": 20, "shenzhen": 30})),
    "findings": lambda folder: evaluate(two_runs(folder, {"chestxray14": 68, "shenzhen": 20}, task="findings")),
    "folds": lambda folder: evaluate(parts(folder, [fold_of(fold, 3) for fold in range(3)])),
    "sources": lambda folder: evaluate(parts(folder, [without_source("montgomery"), without_source("shenzhen")])),
    "external": lambda folder: evaluate(two_runs(folder, test=predictions({"shenzhen": 30})), external="shenzhen"),
    "user's table": lambda folder: evaluate(two_runs(folder, {"clinic [A]": 40})),
}


def parts(folder, splits):
    for model in ("cnn", "cnn_lstm"):
        for number, split in enumerate(splits):
            dataset = split.get("held_out", "chestxray14")
            test = predictions({dataset: 30}, seed=50 + number)
            sources = {"chestxray14": 40, "montgomery": 20, "shenzhen": 20}
            write_run(folder / f"{model}_{number}", model, 0, sources, test=test, split=split)
    return folder


def with_checklist(written, numbers):
    """The report with the checklist at its end, whether or not it has one already."""
    sections = [one for one in written.sections if one.title != claim.TITLE]
    return replace(written, sections=[*sections, claim.appendix(sections, numbers)])


def rows(section: Section) -> list[list[str]]:
    [table] = [block for block in section.blocks if isinstance(block, Table)]
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
def test_every_link_of_a_real_report_leads_somewhere(kind, tmp_path):
    numbers, written, _ = REPORTS[kind](tmp_path)
    written = with_checklist(written, numbers)
    page = Page(html(written))
    assert len(page.ids) == len(set(page.ids))
    in_page = [link.removeprefix("#") for link in page.links if link.startswith("#")]
    assert set(in_page) <= set(page.ids)
    assert all(link.startswith(("#", "https://")) for link in page.links)
    text = markdown(written)
    in_text = re.findall(r"\]\(#([^)]+)\)", text)
    assert set(in_text) <= set(targets(text))
    assert len(in_text) == len(in_page) > 30


@pytest.mark.parametrize("kind", REPORTS)
def test_all_items_stand_there_and_each_has_a_link_or_says_that_it_is_not_reported(kind, tmp_path):
    numbers, written, _ = REPORTS[kind](tmp_path)
    section = with_checklist(written, numbers).sections[-1]
    assert [row[0] for row in rows(section)] == [str(number) for number in range(1, 45)]
    for number, asks, where in rows(section):
        assert asks
        assert ("](#" in where) != where.startswith("not reported"), number
        assert where.startswith("[") or "; to add: " in where, number
    unreported = sum(where.startswith("not reported") for _, _, where in rows(section))
    [text] = [block.text for block in section.blocks if isinstance(block, Text)]
    assert f"The other {unreported} are not reported" in text
    assert f"Of 44 items {44 - unreported} lead" in text
    assert f"{sum('; missing: ' in where for _, _, where in rows(section))} of them with something missing" in text


def test_what_no_report_can_know_is_not_reported(tmp_path):
    numbers, written, _ = evaluate(two_runs(tmp_path))
    said = {asks: where for _, asks, where in rows(claim.appendix(written.sections, numbers))}
    for asks in ("Funding and the funders' role", "De-identification", "Agreement of readers", "Aims and hypotheses"):
        assert said[asks].startswith("not reported; to add: ")
    assert said["Registration as a clinical trial"] == "not reported; to add: the number, if it was registered."


def test_a_section_that_is_not_in_the_report_is_not_reported(tmp_path):
    numbers, written, _ = evaluate(two_runs(tmp_path))
    without = [one for one in written.sections if one.title != "Data and split"]
    said = {asks: where for _, asks, where in rows(claim.appendix(without, numbers))}
    assert said["How data were divided"] == "not reported."
    assert said["Sources of the data"].startswith("not reported; to add: hospitals")


def test_an_external_test_is_one_only_where_its_source_was_not_learnt_from(tmp_path):
    def said(numbers, written):
        found = {asks: where for _, asks, where in rows(claim.appendix(written.sections, numbers))}
        return found["Test on data of the same source"], found["Test on data of another source"]

    same, other = said(*evaluate(two_runs(tmp_path / "a"))[:2])
    assert same.startswith("[The study's table](#the-studys-table)")
    assert other.startswith("not reported; to add")
    test = predictions({"shenzhen": 30})
    same, other = said(*evaluate(two_runs(tmp_path / "b", test=test), external="shenzhen")[:2])
    assert same.startswith("not reported; to add")
    assert other == "[The study's table](#the-studys-table), [Data and split](#data-and-split)."
    same, other = said(*evaluate(two_runs(tmp_path / "c"), external="chestxray14")[:2])
    assert other.startswith("not reported")
    same, other = said(*evaluate(parts(tmp_path / "d", [without_source("montgomery"), without_source("shenzhen")]))[:2])
    assert same.startswith("not reported")
    assert other.startswith("[The study's table]")
    restricted = {"datasets": {"chestxray14": 60, "shenzhen": 40}, "config": {"data.train_on": "shenzhen"}}
    same, other = said(*evaluate(two_runs(tmp_path / "e", **restricted))[:2])
    assert same.startswith("[The study's table]")
    assert other.startswith("[The study's table]")
    runs = two_runs(tmp_path / "f", test=test)
    same, other = said(*evaluate(runs, external="shenzhen", unsearched=({"run": "X", "resize": "pad"},))[:2])
    assert same.startswith("not reported")
    assert other.startswith("not reported")


def test_intervals_are_reported_where_the_runs_have_them(tmp_path):
    numbers, written, _ = evaluate(two_runs(tmp_path))
    for block in numbers["models"].values():
        block.pop("test_interval", None)
    said = {asks: where for _, asks, where in rows(claim.appendix(written.sections, numbers))}
    assert said["Statistical uncertainty"] == "not reported; to add: intervals and tests."
    assert said["Performance and its uncertainty"].endswith("; missing: intervals.")
    numbers["models"]["cnn"]["test_interval"] = {"accuracy": [0.1, 0.9]}
    said = {asks: where for _, asks, where in rows(claim.appendix(written.sections, numbers))}
    assert "[Differences between the models](#differences)" in said["Statistical uncertainty"]
    assert "missing" not in said["Statistical uncertainty"] + said["Performance and its uncertainty"]


def test_how_labels_came_about_is_unknown_of_a_users_own_table(tmp_path):
    numbers, written, _ = evaluate(two_runs(tmp_path / "a", {"clinic": 40}))
    said = {asks: where for _, asks, where in rows(claim.appendix(written.sections, numbers))}
    assert said["How the reference standard was defined"].startswith("not reported")
    numbers, written, _ = evaluate(two_runs(tmp_path / "b"))
    said = {asks: where for _, asks, where in rows(claim.appendix(written.sections, numbers))}
    assert said["How the reference standard was defined"].startswith("[What to keep in mind](#what-to-keep-in-mind)")


def test_a_title_with_brackets_is_still_a_link(tmp_path):
    datasets = {"clinic [A]": 40, "clinic [B]": 40}
    numbers, written, _ = evaluate(two_runs(tmp_path, datasets))
    said = {asks: where for _, asks, where in rows(claim.appendix(written.sections, numbers))}
    assert "[clinic (A) alone](#clinic-a-alone)" in said["Robustness and sensitivity to assumptions"]


def test_one_class_on_the_test_part_does_not_stop_it(tmp_path):
    table = predictions({"chestxray14": 20}).assign(target_abnormal=np.float32(0))
    numbers, written, _ = evaluate(two_runs(tmp_path, test=table))
    assert len(rows(claim.appendix(written.sections, numbers))) == 44
