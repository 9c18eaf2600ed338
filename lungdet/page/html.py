"""HTML: a document as one page that needs no other file and no network."""

import base64
import re
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from lungdet.page.document import Document
from lungdet.page.markup import plain, rendered

TEMPLATES = Path(__file__).parent / "templates"
_INTERVAL = re.compile(r" \[((?:[-+−]?[\d.,]+ to [-+−]?[\d.,]+)|no interval)\]")
_SETTING = re.compile(r"(?<![\w.\"])[\w.]+=(?!\")")
"""The key of a setting, `learning_rate=`, which a narrow column may break between its words; no attribute of a tag."""
_BELOW = r'<span class="interval">[\1]</span>'
"""An interval stands below its number, so that a table of them fits a page."""


def html(document: Document) -> str:
    """The page."""
    return _template().render(document=document)


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
    def link(words: str, target: str) -> str:
        return f'<a href="{escape(target)}">{words}</a>' if page["document"].leads(target) else words

    return Markup(rendered(text, escape, lambda code: f"<code>{escape(code)}</code>", link))


@jinja2.pass_context
def _cell(page: jinja2.runtime.Context, text: str) -> Markup:
    cell = _INTERVAL.sub(_BELOW, str(_inline(page, text)))  # of a str: what is put into a Markup is escaped
    return Markup(_SETTING.sub(lambda words: re.sub("[_=]", r"\g<0><wbr>", words[0]), cell))
