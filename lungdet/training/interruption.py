"""A run that is interrupted, by Ctrl-C or SIGTERM, says how it goes on."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from lungdet.machine.commands import command, override
from lungdet.machine.signals import Interrupted, raising
from lungdet.runs.folder import Run

log = logging.getLogger(__name__)


@contextmanager
def advice(run: Run) -> Iterator[None]:
    """Within the block SIGINT and SIGTERM raise `Interrupted`, and a line says how the run goes on."""
    with raising():
        try:
            yield
        except Interrupted:
            if run.can_continue:
                resume = command("train.py", override("resume", run.folder))
                log.warning("interrupted; from the last whole epoch it goes on with: %s", resume)
            else:
                log.warning("interrupted before the first epoch was whole; start it anew")
            raise
