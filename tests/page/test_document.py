"""One document, two renderings: links lead to sections in both, tables and pictures are files, nothing stale stays."""

import base64
import csv
import io
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from PIL import Image

from lungdet.page.document import (
    Caution,
    Columns,
    Details,
    Document,
    Figure,
    Items,
    Picture,
    Pictures,
    Section,
    Table,
    Text,
    anchors,
    slug,
)
from lungdet.page.files import write_figures, write_tables
from lungdet.page.html import html
from lungdet.page.markdown import markdown
from lungdet.page.markup import plain

SVG = '<svg xmlns="http://www.w3.org/2000/svg"></svg>'


def png(shade: int = 100) -> bytes:
    data = io.BytesIO()
    Image.new("L", (8, 8), shade).save(data, "PNG")
    return data.getvalue()


def document(*blocks, sections: tuple[Section, ...] = (), **more) -> Document:
    return Document("Title", "The answer.", [Section("First", list(blocks)), *sections], **more)


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.links, self.images = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if tag == "a" else []
        self.images += [attributes] if tag == "img" else []


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("The study's table", "the-studys-table"),
        ("phantom-chestxray14 alone", "phantom-chestxray14-alone"),
        ("my_set: age, sex & view", "my_set-age-sex--view"),
        ("ROC / PR (with `bands`)", "roc--pr-with-bands"),
        ("Größe 2 × 2", "größe-2--2"),
        ("?!", "section"),
    ],
)
def test_an_anchor_is_what_github_makes_of_the_heading(title, expected):
    assert slug(title) == expected


def test_no_anchor_stands_twice_and_a_chosen_one_keeps_its_name():
    sections = [Section("Runs", []), Section("Runs", []), Section("Others", [], "runs"), Section("Runs!", [])]
    assert anchors(sections) == ["runs-1", "runs-2", "runs", "runs-3"]
    page = Page(html(Document("Title", "", sections)))
    assert page.ids == ["runs-1", "runs-2", "runs", "runs-3"]


def test_markdown_marks_an_anchor_only_where_the_heading_has_another_one():
    text = markdown(document(sections=(Section("Compared", [], "differences"), Section("First", []))))
    assert '<a id="differences"></a>\n\n## Compared' in text
    assert text.count("<a id=") == 1


def test_all_sections_are_linked_after_the_first_screen():
    sections = tuple(Section(f"Part {i}", []) for i in range(3))
    written = document(sections=sections)
    page = html(written)
    assert Page(page).links == ["#first", "#part-0", "#part-1", "#part-2"]
    assert page.index(">Part 0</h2>") < page.index("<nav") < page.index(">Part 1</h2>")
    text = markdown(written)
    [line] = [line for line in text.splitlines() if line.startswith("[First](#first)")]
    assert line == "[First](#first) · [Part 0](#part-0) · [Part 1](#part-1) · [Part 2](#part-2)"
    assert text.index("## Part 0") < text.index(line) < text.index("## Part 1")
    assert html(document(sections=sections, opening=3)).index(">Part 1</h2>") < html(
        document(sections=sections, opening=3)
    ).index("<nav")


def test_links_and_code_are_rendered_everywhere_that_words_stand():
    link = "see [`it` all](#second) or [the first](#first)"
    blocks = [
        Text(link),
        Caution(link),
        Items([link]),
        Table(["A", link], [["b", link]], notes=[link]),
        Figure("f", SVG, "title", "alt", link),
        Columns([[Text(link)], [Details(link, [Text(link)])]]),
        Pictures([Picture("p", png(), "alt", link)]),
    ]
    written = Document("T", link, [Section("First", blocks), Section("Second", [])], opening=9)
    page, text = html(written), markdown(written)
    right = '<a href="#second"><code>it</code> all</a> or <a href="#first">the first</a>'
    assert page.count(right) == 12
    assert text.count(link) == 12


def test_a_page_beside_this_one_is_linked_to_by_its_name_alone():
    text = "see [the list](list.html), [its end](list.html#end) and [another](other.html)"
    written = document(Text(text), sections=(Section("Second", []),), opening=1, beside={"list.html": "A list"})
    assert Page(html(written)).links == ["list.html", "list.html#end", "#first", "#second", "list.html"]
    assert "[the list](list.md), [its end](list.md#end) and another" in markdown(written)


def test_details_are_folded_on_the_page_and_stand_in_the_markdown_and_among_the_files(tmp_path):
    folded = Details("The numbers", [Table(["A"], [["1"]]), Figure("f", SVG, "What <it> shows", "1 & 2", "")])
    written = document(Columns([[Text("beside")], [folded]]))
    page, text = html(written), markdown(written)
    assert "<summary>The numbers</summary>" in page
    assert "<details open" not in page
    assert 'role="img" aria-labelledby="f-title" aria-describedby="f-words"' in page
    assert '<title id="f-title">What &lt;it&gt; shows</title><desc id="f-words">1 &amp; 2</desc>' in page
    assert text.index("**The numbers**") < text.index("| A |") < text.index("figures/f.svg")
    write_figures(written, tmp_path)
    write_tables(written, tmp_path)
    assert ElementTree.parse(tmp_path / "figures" / "f.svg").getroot()[1].tag.endswith("title")
    assert (tmp_path / "tables" / "first.csv").exists()


def test_a_link_to_nowhere_is_its_words():
    written = document(Text("see [the runs](#runs) and [the `rest`](#rest)"))
    assert "see the runs and the <code>rest</code>" in html(written)
    assert "see the runs and the `rest`" in markdown(written)


@pytest.mark.parametrize(
    "hostile",
    [
        "[x](javascript:alert(1))",
        '[x](https://a.b/"onclick="alert(1))',
        "[x](http://a.b)",
        "[x](https://a.b)",
        "<img src=x onerror=alert(1)>",
        "a\n\n# b\n\n<script>alert(1)</script>",
        "<script>alert(1)</script>",
        '`<img src=x onerror="1">`',
        "[<b>x</b>](#first)",
    ],
)
def test_names_make_no_markup_and_no_links_of_their_own(hostile):
    sections = (Section(hostile, [Table([hostile], [[hostile]])]), Section("Last", []))
    written = Document(hostile, hostile, [Section("First", [Text(hostile)]), *sections])
    page, text = html(written), markdown(written)
    assert {link for link in Page(page).links if not link.startswith("#")} == set()
    for tag in ("<script>alert", "<img", "<b>"):
        assert tag not in page
    assert not re.search(r"(?<!\\)\]\((javascript|http)", text)
    assert not re.search(r"(?<!\\)<(?!a id=|/a>)[a-z/!?]", re.sub("`[^`]*`", "", text))
    assert not re.search("^# b", text, re.MULTILINE)


def test_code_is_left_alone():
    written = document(Text("type `[x](#first)` and `a|b`"), Table(["`a|b`"], [["`[x](#first)`"]]))
    assert "<code>[x](#first)</code> and <code>a|b</code>" in html(written)
    assert Page(html(written)).links == []
    assert "| `a\\|b` |" in markdown(written)


def test_a_warning_stands_out_without_colour():
    written = document(Caution("Picked on test."))
    assert "<strong>Warning:</strong> Picked on test." in html(written)
    assert "> **Warning:** Picked on test." in markdown(written)


def test_pictures_are_inside_the_page_and_beside_the_markdown(tmp_path):
    pictures = [Picture(f"p{i}", png(i), f"what [{i}] | shows", f"caption `{i}`") for i in range(5)]
    written = document(Pictures(pictures))
    images = Page(html(written)).images
    assert [image["alt"] for image in images] == [f"what [{i}] | shows" for i in range(5)]
    assert [base64.b64decode(image["src"].split(",")[1]) for image in images] == [png(i) for i in range(5)]
    write_figures(written, tmp_path)
    text = markdown(written)
    names = re.findall(r"!\[[^!]*\]\((figures/[^)]+)\)", text)
    assert names == [f"figures/p{i}.png" for i in range(5)]
    assert [(tmp_path / name).read_bytes() for name in names] == [png(i) for i in range(5)]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", row)) - 1 for row in rows] == [4, 4, 4, 1, 1, 1]


def test_every_table_is_a_file_with_the_cells_as_they_are_read(tmp_path):
    table = Table(["Model", "AUROC ± SD"], [["[CNN](#first) `a|b`", "0.9, or so"]])
    sections = (Section("Second", [Text("x"), table, table]), Section("Second 2", [table]))
    write_tables(document(table, sections=sections), tmp_path)
    files = sorted((tmp_path / "tables").glob("*.csv"))
    assert [file.name for file in files] == ["first.csv", "second-2-1.csv", "second-2.csv", "second.csv"]
    for file in files:
        with file.open(encoding="utf-8", newline="") as lines:
            assert list(csv.reader(lines)) == [["Model", "AUROC ± SD"], ["CNN a|b", "0.9, or so"]]


@pytest.mark.parametrize("cell", ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3+cmd|' /C calc'!A0", "\t=1+1"])
def test_a_name_is_no_formula_in_a_spreadsheet_and_numbers_stay_numbers(tmp_path, cell):
    numbers = ["-0.5", "+1.2", "-0.012 [-0.1 to 0.2]", "-3.5 ± 0.4", "-1 [no interval]"]
    write_tables(document(Table([cell], [[cell], *[[number] for number in numbers]])), tmp_path)
    with (tmp_path / "tables" / "first.csv").open(encoding="utf-8", newline="") as lines:
        head, first, *others = [row for [row] in csv.reader(lines)]
    assert head == first == f"'{' '.join(['', *cell.split()]) if cell[0].isspace() else cell}"
    assert others == numbers


def test_a_section_of_any_length_of_name_has_its_table_in_a_file(tmp_path):
    write_tables(document(sections=[Section("x" * 400, [Table(["a"], [["1"]])])]), tmp_path)
    assert len(list((tmp_path / "tables").glob("xxx*.csv"))) == 1


def test_an_interval_stands_below_its_number_on_the_page_and_a_setting_may_be_broken_between_its_words():
    page = html(
        Document(
            "title",
            "answer",
            [Section("Results", [Table(["Model", "AUROC"], [["a_b weight_decay=<i>", "0.8 [0.7 to 0.9]"]])])],
        )
    )
    assert ">a_b weight_<wbr>decay=<wbr>&lt;i&gt;</td>" in page
    assert '0.8<span class="interval">[0.7 to 0.9]</span></td>' in page


def test_an_earlier_reports_files_go_and_everybody_elses_stay(tmp_path):
    table = Table(["A"], [["1"]])
    before = document(table, Figure("old", SVG, "", "", ""), Pictures([Picture("mistake", png(), "", "")]), table)
    write_figures(before, tmp_path)
    write_tables(before, tmp_path)
    for own in ("figures/mine.png", "figures/mine.svg", "tables/mine.csv"):
        (tmp_path / own).write_text("mine")
    now = document(table, Figure("new", SVG, "", "", ""))
    write_figures(now, tmp_path)
    write_tables(now, tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*") if path.suffix}
    kept = {"figures/mine.png", "figures/mine.svg", "tables/mine.csv"}
    assert left == {"figures/new.svg", "tables/first.csv", *kept}
    write_figures(document(), tmp_path)
    write_tables(document(), tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*") if path.suffix}
    assert left == kept


def test_nothing_to_write_makes_no_folder(tmp_path):
    write_figures(document(), tmp_path)
    write_tables(document(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_columns_of_sentences_may_fold_and_tiny_ones_take_no_room():
    table = Table(["No.", "Where", "Value"], [["1", "a sentence " * 8, "0.5"]], 2)
    assert table.shapes == ["word short", "word prose", "short"]
    link = Table(["Where"], [["[words](#a-long-anchor-that-nobody-sees-because-it-is-only-followed)"]])
    assert link.shapes == ["word short"]


def test_plain_text_has_the_words_alone():
    assert plain("see [`it` all](#x), `a` and [that](https://c)") == "see it all, a and [that](https://c)"
