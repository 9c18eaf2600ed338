"""Markup: what may stand in the texts of a page, and what of it is read.

`code`, and links to a section, `[words](#anchor)`, or to a page beside this one, `[words](claim.html)`. Names of
datasets, runs and models come from whoever made them: they make no other link, no tag and no heading.
"""

import re
from collections.abc import Callable

_MARKUP = re.compile(r"`(?P<code>[^`]+)`|\[(?P<words>[^\[\]]+)\]\((?P<target>[\w-]+\.html|(?:[\w-]+\.html)?#[\w-]+)\)")


def plain(text: str) -> str:
    """Text without its markup: of code and links the words."""
    return rendered(text, str, str, lambda words, _: words)


def rendered(
    text: str, prose: Callable[[str], str], code: Callable[[str], str], link: Callable[[str, str], str]
) -> str:
    """Each piece of the text given to its function: code, a link's rendered words and target, and what is neither."""
    text = re.sub(r"\s+", " ", text)  # a line of its own could be a heading, a list or a table in Markdown
    pieces, end = [], 0
    for match in _MARKUP.finditer(text):
        pieces.append(prose(text[end : match.start()]))
        words = match["words"] and rendered(match["words"], prose, code, link)
        pieces.append(link(words, match["target"]) if words else code(match["code"]))
        end = match.end()
    return "".join([*pieces, prose(text[end:])])
