"""Weights & Biases: asked for nothing, waited for briefly, and never what stops a run."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from netrc import NetrcParseError, netrc
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from lightning.pytorch.loggers import WandbLogger
from omegaconf import OmegaConf

from lungdet.errors import InputError
from lungdet.machine import ranks
from lungdet.runs.folder import Run

log = logging.getLogger(__name__)

PATIENCE = 8  # seconds that it may take to start online, and again to finish
ANSWER = 3  # seconds that its server may take to answer a first request
OFFLINE = 600  # seconds to start and to finish offline, where nobody is waited for: only a busy machine makes it slow


@contextmanager
def wandb_logger(run: Run) -> Iterator[WandbLogger | None]:
    """The run's Weights & Biases logger, or None where `logger=csv` was chosen; closed when the block ends.

    Online where a key is configured and the server answers, else offline. It never asks for a key, never stops
    training, and waits for the server no longer than `PATIENCE` seconds to start and as long again to finish; what was
    not sent by then stays in the run folder for `wandb sync`. The environment variable WANDB_MODE overrules.

    The run's name is the run folder's, its group the folder above: the multirun.
    """
    if run.config.logger.project is None or ranks.rank():
        yield None
        return
    os.environ.setdefault("WANDB_SILENT", "true")  # one line of ours says where the run is
    import wandb

    logger = _start(run, _mode())
    try:
        yield logger
    except BaseException:
        wandb.finish(exit_code=1)
        raise
    wandb.finish()


def _start(run: Run, mode: str) -> WandbLogger | None:
    import wandb

    patience = PATIENCE if mode == "online" else OFFLINE
    identity = {
        "name": run.name,
        "group": run.folder.parent.name if (run.folder.parent / "multirun.yaml").exists() else None,
        "id": re.sub(r"\W+", "-", f"{run.environment['started']}-{run.name}")[:128],
        "config": OmegaConf.to_container(run.config),
        "save_dir": run.folder,
        "mode": mode,
        "settings": wandb.Settings(init_timeout=patience, finish_timeout=patience, console="off", silent=True),
    }
    options = OmegaConf.to_container(run.config.logger)
    if refused := [key for key in options if key in (*identity, "dir", "experiment")]:
        raise InputError(f"logger.{refused[0]}={options[refused[0]]}: each run has its own; leave it out")
    logger = WandbLogger(**identity, **options)
    try:
        logger.experiment  # noqa: B018  starts it
    except Exception as error:  # whatever the server or the client runs into must not stop training
        wandb.teardown()
        if mode == "offline":
            log.warning("Weights & Biases did not start (%s): metrics.csv alone is written", error)
            return None
        log.warning("Weights & Biases did not start (%s): logging offline", error)
        return _start(run, "offline")
    if logger.experiment.url:
        log.info("Weights & Biases: %s", logger.experiment.url)
    return logger


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
