"""A run that is interrupted, by Ctrl-C or SIGTERM, ends at once, as shells expect, and says how it goes on."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lungdet.machine.commands import command, override
from lungdet.runs.folder import Run

log = logging.getLogger(__name__)

_USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class Interrupted(SystemExit):
    """A signal ended the program; `code` is 128 and the signal's number.

    No `KeyboardInterrupt`, of which Lightning makes status 1; no `Exception`, after which Hydra starts the next job.
    """


@contextmanager
def advice(run: Run) -> Iterator[None]:
    """Within the block SIGINT and SIGTERM raise `Interrupted`, and a line says how the run goes on."""
    with raising():
        try:
            yield
        except Interrupted:
            if run.can_continue:
                goes_on = command("train.py", override("resume", run.folder))
                log.warning("interrupted; from the last whole epoch it goes on with: %s", goes_on)
            else:
                log.warning("interrupted before the first epoch was whole; start it anew")
            raise


@contextmanager
def raising() -> Iterator[None]:
    """Within the block SIGINT and SIGTERM raise `Interrupted` in this process.

    Where somebody else answers a signal already, or it is ignored, it is left so.
    """
    process = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            raise Interrupted(128 + number)
        # A process that was forked inherits the answer, not the task.
        if number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    in_main_thread = threading.current_thread() is threading.main_thread()
    taken = [number for number, usual in _USUAL.items() if in_main_thread and signal.getsignal(number) is usual]
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, _USUAL[number])
