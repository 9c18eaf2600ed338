"""A document of headings, text, tables and pictures, written once and rendered as Markdown and as one HTML page.

Text, items, cells, notes, captions and the answer may hold `code` and links to a section, `[words](#anchor)`, or to a
page beside this one, `[words](claim.html)`. A link to what the document lacks is rendered as its words alone. Names of
datasets, runs and models come from whoever made them: they make no other link, no tag, no heading, and no formula in a
spreadsheet.
"""

import base64
import csv
import io
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import count
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from lungdet.machine.writing import make_folder, replacing, write_text

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Caution:
    """A paragraph in a box that warns of what is easily read wrongly."""

    text: str
    kind: str = "caution"


@dataclass(frozen=True)
class Items:
    """A list of short paragraphs."""

    items: list[str]
    kind: str = "items"


@dataclass(frozen=True)
class Table:
    """A table of text; the first `text_columns` are words, the others numbers. Notes stand below it."""

    columns: list[str]
    rows: list[list[str]]
    text_columns: int = 1
    notes: list[str] = field(default_factory=list)
    kind: str = "table"

    @cached_property
    def shapes(self) -> list[str]:
        """Of each column the classes that lay it out: words or numbers, very short, or long enough to be folded."""
        longest = [max(len(plain(cell)) for cell in cells) for cells in zip(self.columns, *self.rows, strict=True)]
        size = ["short" if letters < 6 else "prose" if letters > 60 else "" for letters in longest]
        return [f"{'word ' if i < self.text_columns else ''}{name}".strip() for i, name in enumerate(size)]


@dataclass(frozen=True)
class Figure:
    """An SVG element, a name for its file, what it shows, the same in words for those who do not see it, a caption."""

    name: str
    svg: str
    title: str
    alt: str
    caption: str
    kind: str = "figure"

    @property
    def element(self) -> str:
        """The SVG element with its title and its words inside, where screen readers look for them."""
        title, words = f"{self.name}-title", f"{self.name}-words"
        inside = f'<title id="{title}">{escape(self.title)}</title><desc id="{words}">{escape(self.alt)}</desc>'
        opened = rf'<svg\1 role="img" aria-labelledby="{title}" aria-describedby="{words}">'
        return re.sub("<svg([^>]*)>", opened, self.svg, count=1).replace(">", f">{inside}", 1)


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG file, a name for it, what it shows in words for those who do not see it, and a caption."""

    name: str
    data: bytes
    alt: str
    caption: str

    @property
    def format(self) -> str:
        """`png` or `jpeg`, which is its suffix too."""
        return "jpeg" if self.data.startswith(b"\xff\xd8") else "png"


@dataclass(frozen=True)
class Pictures:
    """Small pictures side by side, so many rem wide."""

    pictures: list[Picture]
    width: float = 14.0
    kind: str = "pictures"


@dataclass(frozen=True)
class Columns:
    """Columns of blocks, side by side where the page is wide enough for them."""

    columns: list[list["Block"]]
    kind: str = "columns"


@dataclass(frozen=True)
class Details:
    """Blocks folded away below a line that says what they are; on paper they are open."""

    summary: str
    blocks: list["Block"]
    kind: str = "details"


OPEN = {"model": 3, "method": 4, "sentence": 4, "caveat": 6}
"""So many sentences of a kind, or on so many models or methods, stand open."""
Block = Text | Caution | Items | Table | Figure | Pictures | Columns | Details


def items(sentences: Sequence[str], noun: str) -> list[Block]:
    """Sentences as a list, those after `OPEN` folded: `3 further caveats`."""
    first, further = [*sentences[: OPEN[noun]]], [*sentences[OPEN[noun] :]]
    folded = f"{len(further)} further {noun}{'' if len(further) == 1 else 's'}"
    return [*([Items(first)] if first else []), *([Details(folded, [Items(further)])] if further else [])]


def flat(blocks: Sequence[Block]) -> Iterator[Block]:
    """The blocks, and in the place of columns and details what stands in them."""
    for block in blocks:
        if isinstance(block, Columns):
            yield from flat([inner for column in block.columns for inner in column])
        elif isinstance(block, Details):
            yield from flat(block.blocks)
        else:
            yield block


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; `anchor` is what links call it, by default made of the title."""

    title: str
    blocks: list[Block]
    anchor: str | None = None

    @property
    def narrow(self) -> bool:
        """Whether half of a wide page is enough for it."""
        return not any(isinstance(block, Table | Pictures | Columns) for block in self.blocks)


@dataclass(frozen=True)
class Document:
    """A title, the answer in a sentence or two, and sections; links to all of them follow the first `opening`.

    `beside` are pages in the same folder that may be linked to, by file what they are called.
    """

    title: str
    answer: str
    sections: list[Section]
    opening: int = 2
    beside: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def anchors(self) -> list[str]:
        """Each section's anchor."""
        return anchors(self.sections)

    def leads(self, target: str) -> bool:
        """Whether a link has somewhere to lead to: a section here, or a page beside this one."""
        page, _, anchor = target.partition("#")
        return page in self.beside if page else anchor in self.anchors


def anchors(sections: Sequence[Section]) -> list[str]:
    """What a link to each section says after `#`; none stands twice."""
    by_place: dict[int, str] = {}
    for i in sorted(range(len(sections)), key=lambda i: sections[i].anchor is None):  # chosen ones first, as links say
        by_place[i] = _unused(sections[i].anchor or slug(sections[i].title), by_place.values())
    return [by_place[i] for i in range(len(sections))]


def slug(title: str) -> str:
    """The anchor that GitHub gives to a Markdown heading: letters, digits, `_` and `-` stay, a space becomes `-`."""
    return re.sub(r"[^\w -]", "", plain(title).strip().lower()).replace(" ", "-") or "section"


def html(document: Document) -> str:
    """One page that needs no other file and no network."""
    return _template().render(document=document)


def markdown(document: Document) -> str:
    """The same content with all details open; figures and pictures are files in `figures/` (see `write_figures`)."""
    titles = [document.title, *[section.title for section in document.sections]]
    by_github = anchors([Section(title, []) for title in titles])[1:]

    def inline(text: str) -> str:
        return _inline_markdown(text, document.leads)

    lines = [f"# {inline(document.title)}", "", f"**{inline(document.answer)}**", ""]
    for number, (section, anchor) in enumerate(zip(document.sections, document.anchors, strict=True)):
        if number == document.opening:
            links = zip(document.sections, document.anchors, strict=True)
            entries = [f"[{_bracketed(plain(s.title))}](#{a})" for s, a in links]
            entries += [f"[{_bracketed(title)}]({_as_markdown(page)})" for page, title in document.beside.items()]
            lines += [" · ".join(entries), ""]
        lines += [] if anchor == by_github[number] else [f'<a id="{anchor}"></a>', ""]
        lines += [f"## {inline(section.title)}", ""]
        lines += _markdown_blocks(section.blocks, inline)
    return "\n".join(lines)


def write_figures(document: Document, folder: Path) -> None:
    """Every figure as `figures/<name>.svg`, with colours of its own for light and dark, every picture as `.png`.

    Those that an earlier report wrote there and this one lacks are deleted; other files stay.
    """
    style = "<style>svg{color:#1f2328}@media(prefers-color-scheme:dark){svg{color:#e6edf3}}</style>"
    files = {}
    for block in flat([block for section in document.sections for block in section.blocks]):
        if isinstance(block, Figure):
            files[f"{block.name}.svg"] = re.sub(r"(<svg[^>]*>)", rf"\1{style}", block.element, count=1).encode()
        elif isinstance(block, Pictures):
            files |= {f"{picture.name}.{picture.format}": picture.data for picture in block.pictures}
    _replace(folder / "figures", files)


def write_tables(document: Document, folder: Path) -> None:
    """Every table as `tables/<anchor of its section>.csv`, a section's second as `-2`, with cells as they are read.

    Those that an earlier report wrote there and this one lacks are deleted; other files stay.
    """
    files: dict[str, bytes] = {}
    for section, anchor in zip(document.sections, document.anchors, strict=True):
        tables = [block for block in flat(section.blocks) if isinstance(block, Table)]
        for number, table in enumerate(tables, start=1):
            text = io.StringIO()
            rows = [[_unformulated(plain(cell)) for cell in row] for row in (table.columns, *table.rows)]
            csv.writer(text, lineterminator="\n").writerows(rows)
            name = anchor[:_LONGEST] if number == 1 else f"{anchor[:_LONGEST]}-{number}"
            files[_unused(name, files)] = text.getvalue().encode()
    _replace(folder / "tables", {f"{name}.csv": data for name, data in files.items()})


def plain(text: str) -> str:
    """Text without its markup: of code and links the words."""
    return _rendered(text, str, str, lambda words, _: plain(words))


@cache
def _template() -> jinja2.Template:
    """Compiled once, which takes as long as filling it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = _cell
    environment.filters["inline"] = _inline
    environment.filters["plain"] = plain
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    return environment.get_template("page.html.j2")


@jinja2.pass_context
def _inline(page: jinja2.runtime.Context, text: str) -> Markup:
    return Markup(_inline_html(text, page["document"].leads))


@jinja2.pass_context
def _cell(page: jinja2.runtime.Context, text: str) -> Markup:
    # Of a str: what is put into a Markup is escaped.
    cell = _INTERVAL.sub(_BELOW, _inline_html(text, page["document"].leads))
    return Markup(_SETTING.sub(lambda words: re.sub("[_=]", r"\g<0><wbr>", words[0]), cell))


_MARKUP = re.compile(r"`(?P<code>[^`]+)`|\[(?P<words>[^\[\]]+)\]\((?P<target>[\w-]+\.html|(?:[\w-]+\.html)?#[\w-]+)\)")
_WRITTEN = ".written"
"""Names the files that a report wrote into the folder, so that the next one deletes no file of anybody else's."""
_IN_A_ROW = 4
_LONGEST = 100
"""Letters of a section's anchor that name a file."""


def _rendered(
    text: str, prose: Callable[[str], str], code: Callable[[str], str], link: Callable[[str, str], str]
) -> str:
    """Each piece of the text given to its function: code, a link's words and target, and what is neither."""
    text = re.sub(r"\s+", " ", text)  # a line of its own could be a heading, a list or a table in Markdown
    pieces, end = [], 0
    for match in _MARKUP.finditer(text):
        pieces.append(prose(text[end : match.start()]))
        pieces.append(code(match["code"]) if match["code"] else link(match["words"], match["target"]))
        end = match.end()
    return "".join([*pieces, prose(text[end:])])


def _inline_html(text: str, leads: Callable[[str], bool]) -> str:
    def link(words: str, target: str) -> str:
        label = _inline_html(words, leads)  # words hold no link, see `_MARKUP`
        return f'<a href="{escape(target)}">{label}</a>' if leads(target) else label

    return _rendered(text, lambda prose: str(escape(prose)), lambda code: f"<code>{escape(code)}</code>", link)


def _inline_markdown(text: str, leads: Callable[[str], bool]) -> str:
    def link(words: str, target: str) -> str:
        label = _inline_markdown(words, leads)
        return f"[{label}]({_as_markdown(target)})" if leads(target) else label

    return _rendered(text, _inert, lambda code: f"`{code}`", link)


def _inert(text: str) -> str:
    """What is no link and no tag on the page must not become one in Markdown."""
    return re.sub(r"<(?=[A-Za-z/!?])", r"\<", text.replace("](", "]\\("))


def _as_markdown(target: str) -> str:
    """Where the Markdown of a page leads that the page's target is on."""
    return target.replace(".html", ".md")


def _unformulated(cell: str) -> str:
    """The cell, after an apostrophe where a spreadsheet would take its text for a formula; numbers are left alone."""
    return f"'{cell}" if cell.lstrip().startswith(("=", "+", "-", "@")) and not _NUMBER.fullmatch(cell) else cell


_NUMBER = re.compile(r"[-+](\d|\.\d)([\d.,%± \[\]-]|to|no interval)*")
_INTERVAL = re.compile(r" \[((?:[-+−]?[\d.,]+ to [-+−]?[\d.,]+)|no interval)\]")
_SETTING = re.compile(r"(?<![\w.\"])[\w.]+=(?!\")")
"""The key of a setting, `learning_rate=`, which a narrow column may break between its words; no attribute of a tag."""
_BELOW = r'<span class="interval">[\1]</span>'
"""An interval stands below its number, so that a table of them fits a page."""


def _markdown_blocks(blocks: Sequence[Block], inline: Callable[[str], str]) -> list[str]:
    return [line for block in blocks for line in [*_MARKDOWN[block.kind](block, inline), ""]]


def _markdown_table(table: Table, inline: Callable[[str], str]) -> list[str]:
    align = [":--" if i < table.text_columns else "--:" for i in range(len(table.columns))]
    rows = [_row(map(inline, table.columns)), _row(align), *[_row(map(inline, row)) for row in table.rows]]
    return rows + [line for note in table.notes for line in ("", inline(note))]


def _markdown_pictures(block: Pictures, inline: Callable[[str], str]) -> list[str]:
    lines = []
    for start in range(0, len(block.pictures), _IN_A_ROW):
        row = block.pictures[start : start + _IN_A_ROW]
        images = [f"![{_bracketed(picture.alt)}](figures/{picture.name}.{picture.format})" for picture in row]
        lines += ["", _row(images), _row([":--"] * len(row)), _row(inline(picture.caption) for picture in row)]
    return lines[1:]


def _row(cells: Collection[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"  # `|` would end a cell


def _bracketed(text: str) -> str:
    """Text that can stand between the brackets of a link."""
    return re.sub(r"([\[\]])", r"\\\1", _inert(re.sub(r"\s+", " ", text)))


_MARKDOWN = {
    "text": lambda block, inline: [inline(block.text)],
    "caution": lambda block, inline: [f"> **Warning:** {inline(block.text)}"],
    "items": lambda block, inline: [f"- {inline(item)}" for item in block.items],
    "table": _markdown_table,
    "figure": lambda block, inline: [
        f"![{_bracketed(f'{block.title}. {block.alt}')}](figures/{block.name}.svg)",
        "",
        f"{inline(block.title)}. {inline(block.caption)}",
    ],
    "pictures": _markdown_pictures,
    "columns": lambda block, inline: [line for column in block.columns for line in _markdown_blocks(column, inline)],
    "details": lambda block, inline: [f"**{inline(block.summary)}**", "", *_markdown_blocks(block.blocks, inline)],
}


def _unused(name: str, names: Collection[str]) -> str:
    """The name, or with the first number that makes it another, as GitHub counts."""
    return name if name not in names else next(f"{name}-{n}" for n in count(1) if f"{name}-{n}" not in names)


def _replace(folder: Path, files: Mapping[str, bytes]) -> None:
    """These files in place of those that an earlier report wrote."""
    record = folder / _WRITTEN
    earlier = record.read_text(encoding="utf-8").splitlines() if record.is_file() else []
    if not files and not earlier:
        return
    make_folder(folder)
    for name in {Path(name).name for name in earlier if name} - files.keys():
        (folder / name).unlink(missing_ok=True)
    write_text(record, "".join(f"{name}\n" for name in files))
    for name, data in files.items():
        with replacing(folder / name) as file:
            file.write(data)
