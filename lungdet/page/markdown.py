"""Markdown: a document as GitHub shows it, its details open; figures and pictures are files (`lungdet.page.files`)."""

import re
from collections.abc import Callable, Iterable, Sequence

from lungdet.page.document import Block, Document, Pictures, Section, Table, anchors
from lungdet.page.markup import plain, rendered

IN_A_ROW = 4
"""So many pictures stand side by side."""


def markdown(document: Document) -> str:
    """The text."""
    titles = [document.title, *[section.title for section in document.sections]]
    by_github = anchors([Section(title, []) for title in titles])[1:]

    def link(words: str, target: str) -> str:
        return f"[{words}]({_as_markdown(target)})" if document.leads(target) else words

    def inline(text: str) -> str:
        return rendered(text, _inert, lambda code: f"`{code}`", link)

    lines = [f"# {inline(document.title)}", "", f"**{inline(document.answer)}**", ""]
    for number, (section, anchor) in enumerate(zip(document.sections, document.anchors, strict=True)):
        if number == document.opening:
            links = zip(document.sections, document.anchors, strict=True)
            entries = [f"[{_bracketed(plain(s.title))}](#{a})" for s, a in links]
            entries += [f"[{_bracketed(title)}]({_as_markdown(page)})" for page, title in document.beside.items()]
            lines += [" · ".join(entries), ""]
        lines += [] if anchor == by_github[number] else [f'<a id="{anchor}"></a>', ""]
        lines += [f"## {inline(section.title)}", ""]
        lines += _blocks(section.blocks, inline)
    return "\n".join(lines)


def _inert(text: str) -> str:
    """What is no link and no tag on the page must not become one in Markdown."""
    return re.sub(r"<(?=[A-Za-z/!?])", r"\<", text.replace("](", "]\\("))


def _as_markdown(target: str) -> str:
    """Where the Markdown of a page leads that the page's target is on."""
    return target.replace(".html", ".md")


def _blocks(blocks: Sequence[Block], inline: Callable[[str], str]) -> list[str]:
    return [line for block in blocks for line in [*_RENDERED[type(block).__name__](block, inline), ""]]


def _table(table: Table, inline: Callable[[str], str]) -> list[str]:
    align = [":--" if i < table.text_columns else "--:" for i in range(len(table.columns))]
    rows = [_row(map(inline, table.columns)), _row(align), *[_row(map(inline, row)) for row in table.rows]]
    return rows + [line for note in table.notes for line in ("", inline(note))]


def _pictures(block: Pictures, inline: Callable[[str], str]) -> list[str]:
    lines = []
    for start in range(0, len(block.pictures), IN_A_ROW):
        row = block.pictures[start : start + IN_A_ROW]
        images = [f"![{_bracketed(picture.alt)}](figures/{picture.name}.{picture.format})" for picture in row]
        lines += ["", _row(images), _row([":--"] * len(row)), _row(inline(picture.caption) for picture in row)]
    return lines[1:]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"  # `|` would end a cell


def _bracketed(text: str) -> str:
    """Text that can stand between the brackets of a link."""
    return re.sub(r"([\[\]])", r"\\\1", _inert(re.sub(r"\s+", " ", text)))


_RENDERED = {
    "Text": lambda block, inline: [inline(block.text)],
    "Caution": lambda block, inline: [f"> **Warning:** {inline(block.text)}"],
    "Items": lambda block, inline: [f"- {inline(item)}" for item in block.items],
    "Table": _table,
    "Figure": lambda block, inline: [
        f"![{_bracketed(f'{block.title}. {block.alt}')}](figures/{block.name}.svg)",
        "",
        f"{inline(block.title)}. {inline(block.caption)}",
    ],
    "Pictures": _pictures,
    "Columns": lambda block, inline: [line for column in block.columns for line in _blocks(column, inline)],
    "Details": lambda block, inline: [f"**{inline(block.summary)}**", "", *_blocks(block.blocks, inline)],
}
