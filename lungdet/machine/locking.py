"""What one process does at a time. The system lets go of the lock of a process that was killed."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lungdet.errors import InputError


@contextmanager
def exclusive(path: Path, busy: InputError, patience: float = 0) -> Iterator[None]:
    """Within the block no other process has the lock.

    Args:
        path: the lock's file, in a folder that is there.
        busy: what is raised where another process has it.
        patience: seconds to wait for that process.

    Raises:
        InputError: `busy`.
        OSError: a folder or a link is in the lock's place, or nothing can be written there.
    """
    from filelock import FileLock, Timeout

    try:
        lock = FileLock(path).acquire(timeout=patience)
    except Timeout:
        raise busy from None
    with lock:
        yield


@contextmanager
def alone(out: Path, lock: Path, key: str = "out") -> Iterator[None]:
    """Within the block no other process that asks for the same writes `out`.

    Args:
        out: as the command line has it, for the message.
        lock: a file that is made, and its folder where it is not there; neither stays, but for a folder that holds
            something. An empty folder that was there before stays.
        key: what names `out` on the command line.

    Raises:
        InputError: another process does.
        OSError: see `exclusive`.
    """
    new = not lock.parent.exists()
    lock.parent.mkdir(parents=True, exist_ok=True)
    busy = InputError(f"{key}={out}: another process is writing it; wait for its end, or name another")
    with exclusive(lock, busy):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)  # while it is ours: who has opened it before gets another
            if new:
                with suppress(OSError):  # something is in it, or it is gone
                    lock.parent.rmdir()
