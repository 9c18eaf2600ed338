"""Weights & Biases: asked for nothing, waited for briefly, and never what stops a run."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from netrc import NetrcParseError, netrc
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from omegaconf import DictConfig, OmegaConf

from lungdet.errors import InputError

log = logging.getLogger(__name__)

PATIENCE = 8  # seconds that it may take to start online, and again to finish
ANSWER = 3  # seconds that its server may take to answer a first request
OFFLINE = 600  # seconds to start and to finish offline, where nobody is waited for: only a busy machine makes it slow
CHOICES = {"log_patients": (None, "rows", "images"), "log_model": (None, "best")}


@dataclass(frozen=True)
class Settings:
    """`logger.*`: where a run is filed and as what, in the words of `wandb.init`, and what of it is logged.

    Attributes:
        log_every_n_steps: of how many steps one is logged.
        log_patients: `rows`: tables with a row an image go to the server; `images`: radiographs, too; None: nothing
            that is of a single patient.
        log_model: `best`: the best epoch's checkpoint goes to the server; None: none does.
    """

    project: str
    entity: str | None
    group: str | None
    job_type: str | None
    name: str | None
    tags: Sequence[str]
    notes: str | None
    log_every_n_steps: int
    log_patients: str | None
    log_model: str | None

    def __post_init__(self) -> None:
        if not isinstance(self.tags, list | tuple):
            raise InputError(f"logger.tags={self.tags}: a list is needed, 'logger.tags=[{self.tags}]'")
        if type(self.log_every_n_steps) is not int or self.log_every_n_steps < 1:
            raise InputError(f"logger.log_every_n_steps={self.log_every_n_steps}: a number of steps is needed, 10 say")
        for key, choices in CHOICES.items():
            if (value := getattr(self, key)) not in choices:
                raise InputError(f"logger.{key}={value}: null or {' or '.join(choices[1:])} is needed")


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


@contextmanager
def connected(identity: Mapping[str, Any]) -> Iterator[Any]:
    """A run of Weights & Biases, `wandb.Run`, closed when the block ends; None where not even the client starts.

    Online where a key is configured and the server answers, else offline. It never asks for a key, never stops
    training, and waits for the server no longer than `PATIENCE` seconds to start and as long again to finish; what was
    not sent by then stays in the folder for `wandb sync`. The environment variable WANDB_MODE overrules.

    Args:
        identity: what `wandb.init` takes.
    """
    os.environ.setdefault("WANDB_SILENT", "true")  # one line of ours says where the run is
    import wandb

    started = _start(identity, _mode())
    try:
        yield started
    except BaseException:
        wandb.finish(exit_code=1)
        raise
    wandb.finish()


@contextmanager
def harmless() -> Iterator[None]:
    """Whatever a dashboard runs into must not stop what it is told of."""
    try:
        yield
    except Exception as error:
        log.warning("Weights & Biases was not told all: %s: %s", type(error).__name__, error)


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
