"""A document of headings, text, tables and figures, written once and rendered as Markdown and as one HTML page."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Text:
    """A paragraph; `backticks` mark code."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Items:
    """A list of short paragraphs."""

    items: list[str]
    kind: str = "items"


@dataclass(frozen=True)
class Table:
    """A table of text; the first `left` columns are words, the others numbers. Notes stand below it."""

    columns: list[str]
    rows: list[list[str]]
    left: int = 1
    notes: list[str] = field(default_factory=list)
    kind: str = "table"


@dataclass(frozen=True)
class Figure:
    """An SVG element, a file name for it, what it shows in words for those who do not see it, and a caption."""

    name: str
    svg: str
    alt: str
    caption: str
    kind: str = "figure"


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: list[Text | Items | Table | Figure]


@dataclass(frozen=True)
class Document:
    """A title, the answer in a sentence or two, and sections."""

    title: str
    answer: str
    sections: list[Section]


def html(document: Document) -> str:
    """One page that needs no other file and no network."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["inline"] = _inline
    return environment.get_template("report.html.j2").render(document=document)


def markdown(document: Document) -> str:
    """The same content; figures are files in `figures/` (see `write_figures`)."""
    lines = [f"# {document.title}", "", f"**{document.answer}**", ""]
    for section in document.sections:
        lines += [f"## {section.title}", ""]
        for block in section.blocks:
            lines += [*_MARKDOWN[block.kind](block), ""]
    return "\n".join(lines)


def write_figures(document: Document, folder: Path) -> None:
    """Every figure as `figures/<name>.svg`, with colours of its own for light and dark."""
    style = "<style>svg{color:#1f2328}@media(prefers-color-scheme:dark){svg{color:#e6edf3}}</style>"
    for section in document.sections:
        for block in section.blocks:
            if isinstance(block, Figure):
                (folder / "figures").mkdir(exist_ok=True)
                svg = re.sub(r"(<svg[^>]*>)", rf"\1{style}", block.svg, count=1)
                (folder / "figures" / f"{block.name}.svg").write_text(svg, encoding="utf-8")


def _markdown_table(table: Table) -> list[str]:
    align = [":--" if i < table.left else "--:" for i in range(len(table.columns))]
    rows = [table.columns, align, *table.rows]
    # `|` would end a cell.
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return lines + [line for note in table.notes for line in ("", note)]


_MARKDOWN = {
    "text": lambda block: [block.text],
    "items": lambda block: [f"- {item}" for item in block.items],
    "table": _markdown_table,
    "figure": lambda block: [f"![{block.alt}](figures/{block.name}.svg)", "", block.caption],
}


def _inline(text: str) -> Markup:
    """Escaped text with `code` marked up."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
