"""Curves to a logger of Lightning's, MLflow's or TensorBoard's say, beside metrics.csv: `logger.lightning`."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from lungdet.errors import InputError, require_no_secret
from lungdet.instantiation import instantiate
from lungdet.runs.folder import Run
from lungdet.training import columns

log = logging.getLogger(__name__)


class Harmless(Logger):
    """Lightning's logger of a run; whatever it runs into is said once, ends its curves, and stops no training.

    What is measured once an epoch stands at its epoch, a step's values at the step; what is no number is a gap.

    Args:
        logger: whom all is passed on to.
    """

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self._logger: Logger | None = logger
        self._kind = type(logger).__name__

    @property
    def name(self) -> str | None:
        """What it is filed under."""
        return self._passed(lambda logger: logger.name)

    @property
    def version(self) -> str | int | None:
        """What tells it from others filed there."""
        return self._passed(lambda logger: logger.version)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log what is a number."""
        values = {name: value for name, value in metrics.items() if value == value}
        at = int(values.pop("epoch")) if "epoch" in values else step
        self._passed(lambda logger: logger.log_metrics(values, at))

    def log_hyperparams(self, params: Mapping[str, Any], *arguments: Any, **named: Any) -> None:
        """Log what a run is."""
        self._passed(lambda logger: logger.log_hyperparams(params, *arguments, **named))

    def conclude(self, outcome: Mapping[str, float]) -> None:
        """Log what a finished run came to, at its last epoch; see `columns.outcome`."""
        self.log_metrics(outcome, step=int(outcome["epochs"]) - 1)

    def save(self) -> None:
        """Write what is held."""
        self._passed(lambda logger: logger.save())

    def finalize(self, status: str) -> None:
        """Close it."""
        self._passed(lambda logger: logger.finalize(status))

    def _passed(self, call: Callable[[Logger], Any]) -> Any:
        if self._logger is None:
            return None
        try:
            return call(self._logger)
        except Exception as error:
            log.warning("%s takes no more, metrics.csv goes on: %s: %s", self._kind, type(error).__name__, error)
            self._logger = None
            return None


@contextmanager
def curves(run: Run) -> Iterator[Harmless]:
    """The logger that `logger.lightning` names, told what the run is, and closed when the block ends.

    Raises:
        InputError: its package is not installed, it refuses its values, or one of them tells a password.
    """
    for key, value in (("MAX_RETRIES", "1"), ("TIMEOUT", "8")):  # MLflow waits minutes for a server that has gone
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{key}", value)
    places = _places(run)
    require_no_secret("logger.lightning", OmegaConf.to_container(run.config.logger.lightning, resolve=True) | places)
    try:
        logger = Harmless(instantiate("logger.lightning", run.config.logger.lightning, **places))
    except ModuleNotFoundError as error:
        raise InputError(
            f"logger.lightning: {error}; pip install 'lungdet[mlflow]' or 'lungdet[tensorboard]'"
        ) from error
    if "logger" not in run.environment:  # MLflow lets nothing be changed in a run that goes on
        logger.log_hyperparams(columns.setting(run))
        if logger.version is not None:
            run.record(logger=logger.version)
    status = "failed"
    try:
        yield logger
        status = "success"
    finally:
        logger.finalize(status)


def _places(run: Run) -> dict[str, Any]:
    """What the run fills in where `logger.lightning` has null: where curves lie, and which are its own."""
    database = f"sqlite:///{Path(run.config.outputs).absolute()}/mlflow.db"
    places = {
        "save_dir": str(run.folder),
        "tracking_uri": os.environ.get("MLFLOW_TRACKING_URI") or database,
        "run_name": run.name,
        "run_id": run.environment.get("logger"),  # of a run that goes on
    }
    return {key: places[key] for key, value in run.config.logger.lightning.items() if value is None and key in places}
