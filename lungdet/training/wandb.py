"""Weights & Biases: asked for nothing, waited for briefly, and never what stops a run."""

import logging
import os
import shlex
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from netrc import NetrcParseError, netrc
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from omegaconf import DictConfig, OmegaConf

from lungdet.errors import InputError, require_no_secret

log = logging.getLogger(__name__)

STARTING, FINISHING = 8, 8  # seconds that it may take to start online, and to finish
ANSWER = 3  # seconds that its server may take to answer a first request
GRACE = 8  # seconds more, after which the client is ended: it writes its file to disk every fifteen
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


def settings_of(config: DictConfig) -> Settings | None:
    """What `logger.*` says; None where nothing is to be logged here (`logger=csv`).

    Raises:
        InputError: the keys are not those of `Settings`, or a value cannot be.
    """
    values, known = OmegaConf.to_container(config), Settings.__dataclass_fields__
    if values.get("project") is None:
        return None
    if odd := sorted(values.keys() ^ known.keys()):
        raise InputError(f"logger.{odd[0]}: the keys of logger=wandb are needed, {', '.join(known)}")
    return Settings(**values)


@contextmanager
def connected(identity: Mapping[str, Any]) -> Iterator[Any]:
    """A run of Weights & Biases, `wandb.Run`, closed when the block ends; None where not even the client starts.

    Online where a key is configured and the server answers, else offline. It never asks for a key, never stops
    training, and waits for the server no longer than `STARTING` seconds to start and `FINISHING + GRACE` to
    finish; what was not sent by then stays in the folder for `wandb sync`. The environment variable WANDB_MODE
    overrules.

    Args:
        identity: what `wandb.init` takes.
    """
    os.environ.setdefault("WANDB_SILENT", "true")  # one line of ours says where the run is
    os.environ.setdefault(
        "OTEL_SDK_DISABLED", "true"
    )  # the client reports on itself, and waits ten seconds at the exit
    started = _start(identity, _mode())
    try:
        yield started
    except BaseException:
        _finish(started, 1)
        raise
    _finish(started, 0)


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

    start, finish = (STARTING, FINISHING) if mode == "online" else (OFFLINE, OFFLINE)
    settings = wandb.Settings(init_timeout=start, finish_timeout=finish, console="off", silent=True)
    try:
        started = wandb.init(**identity, mode=mode, settings=settings)
        if mode == "online":
            _write_artifacts_down(started)
    except Exception as error:  # whatever the server or the client runs into must not stop training
        wandb.teardown()
        if mode == "offline":
            log.warning("Weights & Biases did not start (%s): metrics.csv alone is written", error)
            return None
        log.warning("Weights & Biases did not start (%s): logging offline", error)
        return _start(identity, "offline")
    if started.url:
        log.info("Weights & Biases: %s", started.url)
    elif mode == "offline":
        log.info("Weights & Biases: sent later with: %s", shlex.join(["wandb", "sync", started.settings.sync_dir]))
    return started


def _finish(started: Any, status: int) -> None:
    """Close the run, and end the client's process where it still waits for a server that neither answers nor hangs up.

    What the run was told is in its file by then.
    """
    import wandb
    from wandb.sdk.lib import module

    if started is None:
        return
    late = threading.Timer(FINISHING + GRACE, _end_client)
    late.daemon = True
    if not started.offline:
        late.start()
    try:
        started.finish(exit_code=status)
    except Exception:
        with suppress(Exception):
            wandb.teardown()
        module.unset_globals()
        words = ["wandb", "sync", "--include-online", started.settings.sync_dir]
        log.warning("Weights & Biases did not take all, which is kept; send it with: %s", shlex.join(words))
    finally:
        late.cancel()


def _end_client() -> None:
    """End the client's process; nothing public does."""
    import wandb

    with harmless():
        wandb.setup().ensure_service()._proc._process.kill()


def _write_artifacts_down(started: Any) -> None:
    """Have artifacts, of which every table is one, written to the run's file and sent when the server takes them.

    Online the client would verify the key first, ask what else is called so, for ten seconds each time, and send what
    is not in the file: of a server that has gone, charts and predictions would be lost, to `wandb sync` too.
    """

    def log_artifact(artifact: Any, aliases: Any = None, use_after_commit: bool = False, **_: Any) -> Any:
        artifact, aliases = started._prepare_artifact(artifact, None, None, aliases)
        started._interface.publish_artifact(
            started, artifact, aliases, None, finalize=True, is_user_created=True, use_after_commit=use_after_commit
        )
        return artifact

    started._log_artifact = log_artifact


def _mode() -> str:
    """online, offline, or what WANDB_MODE says; a log line gives the reason.

    wandb's own login would verify the key over the network for twenty seconds, hence a look at where keys are kept
    and one short request.
    """
    if "WANDB_MODE" in os.environ:
        return os.environ["WANDB_MODE"]
    import wandb

    server = wandb.setup().settings.base_url
    require_no_secret("WANDB_BASE_URL", server)
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
