"""Web pages that list a folder's files."""

from html.parser import HTMLParser
from pathlib import PureWindowsPath
from urllib.parse import unquote, urljoin, urlsplit


def links(html: str, base: str, ends: str) -> list[str]:
    """The files in the page's own folder that it links to, in its order.

    Args:
        html: the page, which may be anything that has links.
        base: its address.
        ends: of the names that are wanted; sorted views, parent and sub-folders have others.

    Returns:
        Absolute addresses.
    """
    found: dict[str, None] = {}

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            href = dict(attributes).get("href") if tag == "a" else None
            url = urljoin(base, href or "")
            name = file_name(url)
            if url.rpartition("/")[0] == base.rpartition("/")[0] and name.endswith(ends) and _is_plain(name):
                found[url] = None

    Links().feed(html)
    return list(found)


def file_name(url: str) -> str:
    """What the file at an address is called."""
    return unquote(urlsplit(url).path.rpartition("/")[2])


def _is_plain(name: str) -> bool:
    """True for a name that cannot lead into another folder."""
    return PureWindowsPath(name).name == name and not name.startswith(".")
