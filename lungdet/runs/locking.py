"""A run in use is locked: one process at a time trains in a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from lungdet.errors import RunError
from lungdet.runs.folder import LOCK, Run


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Within the block nobody else trains in the run.

    Raises:
        RunError: somebody does already.
    """
    from filelock import FileLock, Timeout

    path = run.folder / LOCK
    if path.is_symlink():
        raise RunError(f"{path}: a link in place of the lock; delete it")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=1)  # who lists runs holds it for a moment
    except Timeout:
        raise RunError(f"{run.folder}: another process is training in it") from None
    try:
        yield
    finally:
        lock.release()


def in_use(run: Run) -> bool:
    """Whether a process is training in a run, as far as the lock tells: not where it is another user's alone."""
    path = run.folder / LOCK
    if path.is_symlink() or not os.access(path, os.W_OK):  # a link is nobody's lock, and none is followed
        return False
    try:
        with locked(run):
            return False
    except RunError:
        return True
