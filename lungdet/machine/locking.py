"""What one process writes at a time. The system lets go of the lock of a process that was killed."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lungdet.errors import InputError


@contextmanager
def alone(out: Path, lock: Path) -> Iterator[None]:
    """Within the block no other process that asks for the same writes `out`.

    Args:
        out: as the command line has it, for the message.
        lock: a file that is made, and its folder where it is not there; neither stays, but for a folder that holds
            something. An empty folder that was there before stays.

    Raises:
        InputError: another process does; or a link is in the lock's place.
    """
    from filelock import FileLock, Timeout

    if lock.is_symlink():
        raise InputError(f"{lock}: a link in place of the lock; delete it")
    new = not lock.parent.exists()
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise InputError(f"out={out}: another process is writing it; wait for its end, or name another") from None
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        held.release()
        if new:
            with suppress(OSError):  # something is in it, or it is gone
                lock.parent.rmdir()
