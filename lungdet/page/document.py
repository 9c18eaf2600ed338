"""A document of headings, text, tables and pictures, written once and rendered as Markdown and as one HTML page.

Text, items, cells, notes, captions and the answer may hold what `lungdet.page.markup` names; a link to what the
document lacks is rendered as its words alone.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count

from markupsafe import escape

from lungdet.page.markup import plain


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Caution:
    """A paragraph in a box that warns of what is easily read wrongly."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list of short paragraphs."""

    items: list[str]


@dataclass(frozen=True)
class Table:
    """A table of text; the first `text_columns` are words, the others numbers. Notes stand below it."""

    columns: list[str]
    rows: list[list[str]]
    text_columns: int = 1
    notes: list[str] = field(default_factory=list)

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


@dataclass(frozen=True)
class Columns:
    """Columns of blocks, side by side where the page is wide enough for them."""

    columns: list[list["Block"]]


@dataclass(frozen=True)
class Details:
    """Blocks folded away below a line that says what they are; on paper they are open."""

    summary: str
    blocks: list["Block"]


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
        by_place[i] = unused(sections[i].anchor or slug(sections[i].title), by_place.values())
    return [by_place[i] for i in range(len(sections))]


def slug(title: str) -> str:
    """The anchor that GitHub gives to a Markdown heading: letters, digits, `_` and `-` stay, a space becomes `-`."""
    return re.sub(r"[^\w -]", "", plain(title).strip().lower()).replace(" ", "-") or "section"


def unused(name: str, names: Collection[str]) -> str:
    """The name, or with the first number that makes it another, as GitHub counts."""
    return name if name not in names else next(f"{name}-{n}" for n in count(1) if f"{name}-{n}" not in names)
