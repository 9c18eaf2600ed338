"""The run that a multirun starts from, made first where it is not there: an experiment stays one command."""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from lungdet.errors import InputError
from lungdet.machine import ranks
from lungdet.machine.commands import override
from lungdet.runs.folder import Run
from lungdet.sweeps import programs

log = logging.getLogger(__name__)


class Preceding(Callback):
    """Trains a run before the first job, or goes on with it where it was cut (`hydra.callbacks` in conf/experiment/).

    Args:
        folder: the run's; None where nothing is to be started from.
        overrides: what it is trained with, by key.
    """

    def __init__(self, folder: str | None, overrides: Mapping[str, Any]) -> None:
        self._run, self._overrides = Run(Path(folder)) if folder else None, dict(overrides)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Comes before the first job of a sweep."""
        if self._run is None:
            return
        try:
            with ranks.one_first():
                if not self._run.finished:
                    self._train(config.get("trust") or ())
        except InputError as error:  # Hydra would only warn of it
            sys.exit(str(error))

    on_run_start = on_multirun_start
    """Comes before a job by itself."""

    def _train(self, trust: Sequence[str]) -> None:
        log.info("first, the run that the others start from: %s", self._run.folder)
        overrides = {"hydra.run.dir": self._run.folder, **self._overrides}
        if self._run.can_continue:
            overrides = {"resume": self._run.folder}
        if trust:
            overrides["trust"] = [*trust]
        words = [override(key, value) for key, value in overrides.items()]
        if programs.run("train", "hydra.mode=RUN", *words):
            sys.exit(f"{self._run.folder} was not trained and the others start from it; it said why above")
