"""Progress of long work: a bar in a terminal, else a line a minute."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

LINE_SECONDS = 60.0


@contextmanager
def progress(work: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """Yields what to call after each piece of work.

    Args:
        work: what is done, such as `preparing images`.
        total: pieces of it.
        done: those of them that are done before.
    """
    console = get_console()  # which log lines are printed through: they stand above the bar
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(work, total=total, completed=done)
            yield lambda: bar.advance(task)
        return
    last_line, count = time.monotonic(), done

    def advance() -> None:
        nonlocal last_line, count
        count += 1
        if time.monotonic() - last_line >= LINE_SECONDS:
            last_line = time.monotonic()
            log.info("%s: %s of %s", work, f"{count:,}", f"{total:,}")

    yield advance
