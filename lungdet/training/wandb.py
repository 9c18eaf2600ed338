"""Weights & Biases: asked for nothing, waited for briefly, and never what stops a run."""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from netrc import NetrcParseError, netrc
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from lightning.pytorch.loggers import WandbLogger
from omegaconf import DictConfig, OmegaConf

from lungdet.errors import InputError
from lungdet.machine import ranks
from lungdet.models.metrics import METRICS
from lungdet.runs.folder import Run
from lungdet.training import columns

log = logging.getLogger(__name__)

PATIENCE = 8  # seconds that it may take to start online, and again to finish
ANSWER = 3  # seconds that its server may take to answer a first request
OFFLINE = 600  # seconds to start and to finish offline, where nobody is waited for: only a busy machine makes it slow

STEP = "trainer/global_step"  # Lightning's name of it
BEST = {"train/loss": None, "val/loss": "min", **{f"val/{name}": "max" for name in METRICS}}
"""What is measured once an epoch, and which of all epochs' values is the best."""


@dataclass(frozen=True)
class Settings:
    """`logger.*`: where a run is filed and as what, in the words of `wandb.init`, and how often a step is logged."""

    project: str
    entity: str | None
    group: str | None
    job_type: str | None
    name: str | None
    tags: Sequence[str]
    notes: str | None
    log_every_n_steps: int

    def __post_init__(self) -> None:
        if not isinstance(self.tags, list | tuple):
            raise InputError(f"logger.tags={self.tags}: a list is needed, 'logger.tags=[{self.tags}]'")
        if type(self.log_every_n_steps) is not int or self.log_every_n_steps < 1:
            raise InputError(f"logger.log_every_n_steps={self.log_every_n_steps}: a number of steps is needed, 10 say")


def settings_of(config: DictConfig) -> Settings:
    """What `logger.*` says.

    Raises:
        InputError: a key is not there, is not one of `Settings`, or has a value that cannot be.
    """
    values, known = OmegaConf.to_container(config), Settings.__dataclass_fields__
    if extra := [key for key in values if key not in known]:
        raise InputError(
            f"logger.{extra[0]}={values[extra[0]]}: no such key, or one that each run has of its own; there are "
            f"{', '.join(known)}"
        )
    if missing := [key for key in known if key not in values]:
        raise InputError(f"logger.{missing[0]} is missing; say logger=wandb")
    return Settings(**values)


class Curves(WandbLogger):
    """Lightning's logger of a run that has been started.

    A value that is not a number is a gap: the best of all epochs would be none from there on.
    """

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log what is a number."""
        super().log_metrics({name: value for name, value in metrics.items() if value == value}, step)


@contextmanager
def wandb_logger(run: Run) -> Iterator[Curves | None]:
    """The run's Weights & Biases logger, or None where `logger=csv` was chosen; closed when the block ends.

    Online where a key is configured and the server answers, else offline. It never asks for a key, never stops
    training, and waits for the server no longer than `PATIENCE` seconds to start and as long again to finish; what was
    not sent by then stays in the run folder for `wandb sync`. The environment variable WANDB_MODE overrules.

    The run is described by `columns.setting`, its curves by `BEST`: what is measured once an epoch has the epoch for
    its axis, a step's loss, learning rate and gradient norm the step.

    Args:
        run: that has recorded what it trains on.
    """
    if run.config.logger.project is None or ranks.rank():
        yield None
        return
    os.environ.setdefault("WANDB_SILENT", "true")  # one line of ours says where the run is
    import wandb

    settings = settings_of(run.config.logger)
    started = _start(_identity(run, settings), _mode())
    if started is None:
        yield None
        return
    for name in ("epoch", STEP):
        started.define_metric(name, hidden=True)
    started.define_metric("step/*", step_metric=STEP)
    for name, best in BEST.items():
        started.define_metric(name, step_metric="epoch", summary=best)
    for name in ("learning_rate", "images_per_second"):
        started.define_metric(name, step_metric="epoch")
    try:
        yield Curves(experiment=started, project=settings.project, save_dir=run.folder)
    except BaseException:
        wandb.finish(exit_code=1)
        raise
    wandb.finish()


def _identity(run: Run, settings: Settings) -> dict[str, Any]:
    """What `wandb.init` is told of a run."""
    multirun = run.folder.parent
    return {
        "project": settings.project,
        "entity": settings.entity,
        "group": settings.group or (multirun.name if (multirun / "multirun.yaml").exists() else None),
        "job_type": settings.job_type or ("search" if "trials" in run.config.get("sweep", {}) else "train"),
        "name": settings.name or run.name,
        "tags": [*dict.fromkeys([*columns.tags(run), *settings.tags])],
        "notes": settings.notes,
        "id": re.sub(r"\W+", "-", f"{run.environment['started']}-{run.name}")[:128],
        "config": columns.setting(run),
        "dir": run.folder,
        "resume": "allow",  # a run that was cut goes on in the same curves
    }


def _start(identity: Mapping[str, Any], mode: str) -> Any:
    """The run started, `wandb.Run`, offline where the server does not have it; None where the client cannot either."""
    import wandb

    patience = PATIENCE if mode == "online" else OFFLINE
    settings = wandb.Settings(init_timeout=patience, finish_timeout=patience, console="off", silent=True)
    try:
        started = wandb.init(**identity, mode=mode, settings=settings)
    except Exception as error:  # whatever the server or the client runs into must not stop training
        wandb.teardown()
        if mode == "offline":
            log.warning("Weights & Biases did not start (%s): metrics.csv alone is written", error)
            return None
        log.warning("Weights & Biases did not start (%s): logging offline", error)
        return _start(identity, "offline")
    if started.url:
        log.info("Weights & Biases: %s", started.url)
    return started


def _mode() -> str:
    """online, offline, or what WANDB_MODE says; a log line gives the reason.

    wandb's own login would verify the key over the network for twenty seconds, hence a look at where keys are kept
    and one short request.
    """
    if "WANDB_MODE" in os.environ:
        return os.environ["WANDB_MODE"]
    import wandb

    server = wandb.setup().settings.base_url
    if not _key_configured(urlsplit(server).hostname):
        log.info("Weights & Biases: no key is configured (wandb login): logging offline")
        return "offline"
    try:
        urlopen(server, timeout=ANSWER).close()
    except HTTPError:  # an answer
        pass
    except OSError as error:
        log.warning("Weights & Biases: %s cannot be reached (%s): logging offline", server, error)
        return "offline"
    return "online"


def _key_configured(host: str) -> bool:
    if os.environ.keys() & {"WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"}:
        return True
    try:
        return netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, NetrcParseError):
        return False
