"""One address into one file: goes on where a connection was cut, tries again with patience, says how far it is."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError
from urllib3.util.retry import Retry

from lungdet.data.download.arriving import Part

log = logging.getLogger(__name__)

PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that may be another one in a minute; every other error is final."""

LINE_SECONDS = 60.0
"""Between two lines of progress where there is no terminal to draw a bar in."""


class DownloadError(RuntimeError):
    """Something that cannot be fetched, trusted or unpacked; the message says what to do."""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        attempts: that bring nothing, one after the other, before giving up.
        wait: seconds after the second of them, doubled with each; the first is repeated at once.
        longest_wait: seconds at most, whatever the server asks for.
        timeout: seconds without an answer or a byte that count as a cut.
    """

    attempts: int = 8
    wait: float = 1.0
    longest_wait: float = 120.0
    timeout: float = 60.0

    def policy(self) -> Retry:
        """The same as urllib3 counts and waits."""
        return Retry(total=self.attempts - 1, backoff_factor=self.wait / 2, backoff_max=self.longest_wait)


def fetch(
    session: requests.Session,
    url: str,
    path: Path,
    patience: Patience,
    length: int | None = None,
    advice: str = "",
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Fetch `url` into `path`, which is there only when it is whole; until then `<path>.part` grows.

    Args:
        session: connections to use again.
        url: http or https.
        path: the file to make, in a folder that exists.
        patience: how often to try and how long to wait.
        length: bytes that the file must have; None takes what the server announces.
        advice: what to do where the address is wrong, which ends the message.
        advance: called with the number of bytes that came, negative where they were thrown away.

    Raises:
        DownloadError: the address is wrong, the server too long without an answer, or the file's length wrong.
    """
    part = Part(path, url)
    policy, most = patience.policy(), part.size
    advance(part.size)
    while not part.whole:
        answer = None
        try:
            with session.get(url, headers=part.headers(), stream=True, timeout=patience.timeout) as answer:
                trouble = f"answered {_status(answer)}"
                if answer.status_code not in PASSING:
                    _refuse(answer, url, path, advice)
                    trouble = part.receive(answer, length, advance)
        except (requests.RequestException, HTTPError) as error:
            if not _passes(error):
                raise DownloadError(f"{url} cannot be fetched ({_cause(error)}). {advice}") from error
            trouble = f"broke off ({_cause(error)})"
        if trouble is None:
            break
        if part.size > most:
            policy, most = patience.policy(), part.size
        try:
            policy = policy.increment("GET", url)
        except MaxRetryError as error:
            raise DownloadError(
                f"{url} {trouble}; attempts in a row that brought nothing: {patience.attempts}. "
                f"What came before is kept: run again to go on. {advice}"
            ) from error
        wait = _wait(policy, answer, patience)
        log.info("%s %s; trying again %s", url, trouble, f"in {wait:.0f} s" if wait >= 1 else "at once")
        time.sleep(wait)
    part.finish()


@contextmanager
def progress(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar in a terminal, else a line a minute; yields what to call with the bytes that came."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=total)
            yield lambda count: bar.advance(task, count)
        return
    said, come = time.monotonic(), 0

    def advance(count: int) -> None:
        nonlocal said, come
        come += count
        if time.monotonic() - said >= LINE_SECONDS:
            said = time.monotonic()
            log.info("%s: %s%s", name, size(come), f" of {size(total)}" if total else "")

    yield advance


def size(count: float) -> str:
    """A number of bytes, to be read."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _refuse(answer: requests.Response, url: str, path: Path, advice: str) -> None:
    if not answer.ok and answer.status_code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise DownloadError(f"{url} answers {_status(answer)}. {advice}")
    if answer.headers.get("Content-Type", "").startswith("text/html") and path.suffix != ".html":
        # What hosts give with status 200 where a file has gone, or a person should press a button.
        raise DownloadError(f"{url} gives a web page, not {path.name}. {advice}")


def _passes(error: Exception) -> bool:
    """True if it may be otherwise with the next attempt."""
    if isinstance(error, requests.exceptions.SSLError):
        return False
    return isinstance(error, (requests.ConnectionError, requests.Timeout, HTTPError))


def _cause(error: Exception) -> str:
    """What is at the bottom of it: the layers above repeat the address."""
    inner = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    return re.sub(r"^\w+\(.*?\): ", "", str(getattr(inner, "reason", None) or inner))


def _wait(policy: Retry, answer: requests.Response | None, patience: Patience) -> float:
    """Seconds that the server asks for, within bounds, else the policy's."""
    try:
        asked = None if answer is None else policy.get_retry_after(answer.raw)
    except InvalidHeader:
        asked = None
    return policy.get_backoff_time() if asked is None else min(asked, patience.longest_wait)


def _status(answer: requests.Response) -> str:
    return f"{answer.status_code} {answer.reason or ''}".strip()
