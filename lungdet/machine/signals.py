"""SIGINT and SIGTERM as an exception, which ends the program at once and with the status that shells expect."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class Interrupted(SystemExit):
    """A signal ended the program; `code` is 128 and the signal's number.

    No `KeyboardInterrupt`, of which Lightning makes status 1; no `Exception`, after which Hydra starts the next job.
    """


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
    answered = [number for number, usual in _USUAL.items() if in_main_thread and signal.getsignal(number) is usual]
    for number in answered:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in answered:
            signal.signal(number, _USUAL[number])
