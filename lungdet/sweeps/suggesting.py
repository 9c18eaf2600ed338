"""What the searches of a multirun suggest, printed together at its end: `-m find=lr model=cnn,cnn_lstm`."""

import atexit
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from lungdet.configuration.jobs import planned
from lungdet.machine import ranks
from lungdet.machine.commands import key_of
from lungdet.runs import suggestions
from lungdet.runs.multirun import differing

log = logging.getLogger(__name__)


class Suggestions(Callback):
    """Prints a line for each search of a multirun of several (`hydra.callbacks` in conf/train.yaml)."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """See to it that they are printed even where a job fails: Hydra then never calls `on_multirun_end`."""
        self._jobs, self._folder = planned(config) if searches(config) else [], Path(config.hydra.sweep.dir).absolute()
        if len(self._jobs) > 1 and not ranks.rank():
            atexit.register(self._print)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print them."""
        if len(self._jobs) > 1 and not ranks.rank():
            atexit.unregister(self._print)
            self._print()

    def _print(self) -> None:
        suggested = {_as_written(search.overrides): search.suggested for search in suggestions.read(self._folder)}
        if not suggested:  # each has said why, or none began
            return
        log.info("suggested:")
        for job in self._jobs:
            value = suggested.get(_as_written(job), "nothing")
            log.info("  %s: %s", shlex.join(word.lstrip("+") for word in differing(self._jobs, job)), value)


def searches(config: DictConfig) -> bool:
    """Whether the jobs of a multirun are searches, all of one kind or of several (`find=lr,batch_size`)."""
    return config.get("find") is not None or "find" in map(key_of, config.hydra.overrides.task)


def _as_written(job: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(word.lstrip("+") for word in job))
