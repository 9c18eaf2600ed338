"""A file on its way: the bytes that have come, and whether the next answer goes on where they end."""

import json
import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import requests

log = logging.getLogger(__name__)

_CHUNK = 1 << 16


class Part:
    """`<path>.part`, what has come of a file, and beside it of which: the server may have another one tomorrow.

    Args:
        path: the file to be; what an earlier call left of the same address is gone on with.
        url: its address.
    """

    def __init__(self, path: Path, url: str) -> None:
        self.path, self.url = path, url
        self.file, self.facts = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
        self.total: int | None = None
        self.version: str | None = None
        try:
            facts = json.loads(self.facts.read_text())
            if facts["url"] == url:
                self.total, self.version = facts["total"], facts["version"]
                return
        except (OSError, ValueError, KeyError):
            pass
        self.file.unlink(missing_ok=True)  # of nobody knows what

    @property
    def size(self) -> int:
        """Bytes that have come."""
        return self.file.stat().st_size if self.file.exists() else 0

    @property
    def whole(self) -> bool:
        """True if all has come that the server announced."""
        return self.file.exists() and self.size == self.total

    def headers(self) -> dict[str, str]:
        """What to ask for: the rest, or everything if the file changed meanwhile."""
        # A compressed answer would have another length, and ranges would count other bytes.
        headers = {"Accept-Encoding": "identity"}
        if self.size:
            headers["Range"] = f"bytes={self.size}-"
            if self.version:
                headers["If-Range"] = self.version
        return headers

    def receive(self, answer: requests.Response, length: int | None, advance: Callable[[int], None]) -> str | None:
        """Write what the answer holds after what is there, or instead of it; what is wrong with it, if anything."""
        start, total = _range(answer)
        continued = answer.status_code == HTTPStatus.PARTIAL_CONTENT
        if start != (self.size if continued else 0) or (continued and self.total not in (None, total)):
            self.drop(advance)
            return "has another file than before"
        if length is not None and total not in (None, length):
            return f"has {total:,} bytes instead of {length:,}"
        if not continued:
            if self.size:
                log.info("%s does not go on where it stopped: starting anew", self.url)
            self.drop(advance)
            etag = answer.headers.get("ETag")
            self.version = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")
        self.total = total
        self.facts.write_text(json.dumps({"url": self.url, "total": total, "version": self.version}))
        with open(self.file, "ab") as file:
            for chunk in answer.raw.stream(_CHUNK, decode_content=False):
                file.write(chunk)
                advance(len(chunk))
        expected, came = total if length is None else length, self.size
        if expected in (None, came):
            return None
        self.drop(advance)
        return f"gave {came:,} bytes instead of {expected:,}"

    def finish(self) -> None:
        """Give the whole file its name."""
        self.file.replace(self.path)
        self.facts.unlink(missing_ok=True)

    def drop(self, advance: Callable[[int], None]) -> None:
        """Begin anew."""
        advance(-self.size)
        self.file.unlink(missing_ok=True)
        self.facts.unlink(missing_ok=True)
        self.total = self.version = None


def _range(answer: requests.Response) -> tuple[int | None, int | None]:
    """The first byte of an answer and the whole file's length, as far as it says; no first byte: nothing of use."""
    if answer.status_code == HTTPStatus.PARTIAL_CONTENT:
        said = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        return (int(said[1]), int(said[2]) if said[2] != "*" else None) if said else (None, None)
    if answer.status_code != HTTPStatus.OK:
        return None, None
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None
