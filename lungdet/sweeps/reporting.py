"""The report that ends a multirun: evaluate.py on the runs it made, so that one command trains and reports."""

import atexit
import logging
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from lungdet.machine import ranks
from lungdet.machine.commands import command, key_of, override
from lungdet.sweeps import programs

log = logging.getLogger(__name__)


class Report(Callback):
    """Evaluates a multirun's folder when its last job is done (`hydra.callbacks` in conf/experiment/).

    It is logged where the runs were, to Weights & Biases. Jobs that failed don't keep it from being written on the
    rest, and a report that can't be written is said plainly and leaves the multirun's exit status as it is. After
    Ctrl-C there is none, nor after `find`, which trains nothing.
    """

    def __init__(self) -> None:
        self._in_a_job = False
        self._words: list[str] | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """See to it that the report is written even where a job fails: Hydra then never calls `on_multirun_end`."""
        if config.get("find") is not None or "find" in map(key_of, config.hydra.overrides.task):
            return
        self._folder = Path(config.hydra.sweep.dir).absolute()
        words = [override("runs", self._folder)]
        if config.get("trust"):
            words.append(override("trust", [*config.trust]))
        if OmegaConf.select(config, "logger.project") is not None:
            words += [f"logger={config.hydra.runtime.choices.logger}", *filter(_files, config.hydra.overrides.task)]
        self._words = words
        atexit.register(self._write)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """A job that is not seen to end was interrupted."""
        self._in_a_job = True

    def on_job_end(self, config: DictConfig, **_: Any) -> None:
        """It ended, well or not."""
        self._in_a_job = False

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Write the report."""
        atexit.unregister(self._write)
        self._write()

    def _write(self) -> None:
        if self._words is None or self._in_a_job or ranks.rank():
            return
        log.info("evaluating %s", self._folder)
        sys.stdout.flush()
        if status := programs.run("evaluate", *self._words):
            log.error(
                "no report was written: evaluate.py ended with status %d and says why above. The runs are kept; once "
                "that is mended: %s", status, command("evaluate.py", *self._words),
            )  # fmt: skip


def _files(word: str) -> bool:
    """Whether a word of the command line says where runs are logged and what of them; each has a name of its own."""
    key = key_of(word)
    return key.startswith("logger.") and key not in ("logger.name", "logger.job_type")
