"""A run in use is locked: one process at a time trains in a folder."""

import os
from contextlib import AbstractContextManager

from lungdet.errors import RunError
from lungdet.machine.locking import exclusive
from lungdet.runs.folder import LOCK, Run


def locked(run: Run) -> AbstractContextManager[None]:
    """Within the block nobody else trains in the run.

    Raises:
        RunError: somebody does already.
        OSError: see `exclusive`.
    """
    busy = RunError(f"{run.folder}: another process is training in it")
    return exclusive(run.folder / LOCK, busy, patience=1)  # who lists runs holds it for a moment


def in_use(run: Run) -> bool:
    """Whether a process is training in a run, as far as the lock tells: not where it is another user's alone."""
    path = run.folder / LOCK
    if path.is_symlink() or not path.is_file() or not os.access(path, os.W_OK):  # no link is followed
        return False
    try:
        with locked(run):
            return False
    except RunError:
        return True
