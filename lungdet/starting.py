"""Which run a configuration asks for: a new folder, or one that was cut; a run in use is locked."""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from lungdet.runs import Run, RunError, find_runs, load_run

if TYPE_CHECKING:
    from filelock import FileLock

log = logging.getLogger(__name__)

# Where a run is written, resumed and reported, and where its images lie, does not change what it computes.
_NOT_THE_EXPERIMENT = ("run_dir", "resume", "outputs", "logger")
_NOT_THE_DATA = ("root", "store", "num_workers", "loader")
_AFTER_THE_FIT = "degrade"  # a group that can be asked of a finished run without training on


@contextmanager
def start(config: DictConfig, overrides: Sequence[str] = ()) -> Iterator[Run]:
    """The run that this configuration asks for: a new one, or with `resume` the one to continue.

    `resume=auto` continues the newest unfinished run of the same configuration under `outputs`, or starts a new one
    and says so. `resume=FOLDER` continues that run with its own configuration, the command line's single values
    (`trainer.max_epochs=50`) laid over it; `degrade=standard` is asked of a finished run without training on.

    The run is locked as long as the `with` block lasts: nobody else can continue it meanwhile.

    Args:
        config: composed by Hydra.
        overrides: what stood on the command line.

    Yields:
        The run, its `config` being the one to train with.

    Raises:
        RunError: there is nothing to continue, another process is at it, or the command line names another group.
    """
    if config.resume == "auto":
        run, lock = _newest_unfinished(config)
    elif config.resume is not None:
        run, lock = _continued(load_run(config.resume), config, overrides)
    else:
        run, lock = None, None
    if run is None:
        run, lock = _new(config)
    try:
        yield run
    finally:
        lock.release()


def _new(config: DictConfig) -> tuple[Run, "FileLock"]:
    run = Run(Path(config.run_dir))
    if (run.folder / "config.yaml").exists():
        raise RunError(f"{run.folder} holds a run already; continue it with resume={run.folder}, or choose another")
    run.folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(run)
    run.create(config)
    log.info("run folder %s", run.folder)
    return run, lock


def _newest_unfinished(config: DictConfig) -> tuple[Run, "FileLock"] | tuple[None, None]:
    runs = find_runs(config.outputs) if Path(config.outputs).is_dir() else []
    wanted = _hash(config)
    runs = [run for run in runs if not run.finished and _hash(run.config) == wanted]
    for run in sorted(runs, key=lambda run: run.environment.get("started", ""), reverse=True):
        if run.can_continue:
            try:
                lock = _lock(run)
            except RunError:  # somebody is at it
                continue
            log.info("resume=auto: continuing %s", run.folder)
            return run, lock
    log.info("resume=auto: no unfinished run of this configuration under %s; starting a new one", config.outputs)
    return None, None


def _continued(run: Run, config: DictConfig, overrides: Sequence[str]) -> tuple[Run, "FileLock"]:
    changes = [change.lstrip("+") for change in overrides if not change.startswith("resume=")]
    afterwards = [change for change in changes if re.split("[.=]", change)[0] == _AFTER_THE_FIT]
    changes = [change for change in changes if change not in afterwards]
    for change in changes:
        key = change.split("=")[0]
        if "/" in key or key in ("experiment", "logger") or OmegaConf.is_dict(run.config.get(key)):
            raise RunError(
                f"resume={run.folder} continues with the run's own configuration; {change} cannot be laid over it. "
                "Give single values (trainer.max_epochs=50), or start a new run"
            )
    if run.finished and not changes and not afterwards:
        raise RunError(f"resume={run.folder}: the run is finished; to train on, raise trainer.max_epochs")
    run.checkpoint("last")
    lock = _lock(run)
    log.info("continuing %s", run.folder)
    changed = OmegaConf.merge(run.config, OmegaConf.from_dotlist(changes), {"run_dir": str(run.folder)})
    if afterwards:
        changed[_AFTER_THE_FIT] = config.get(_AFTER_THE_FIT)
    trains_on = _training(changed) != _training(run.config)
    return Run(run.folder, changed if changes or afterwards else None, trains_on), lock


def _experiment(config: DictConfig) -> dict:
    """The part of a configuration that decides what a run computes."""
    values = OmegaConf.to_container(config, resolve=True)
    values["data"] = {key: value for key, value in values.get("data", {}).items() if key not in _NOT_THE_DATA}
    return {key: value for key, value in values.items() if key not in _NOT_THE_EXPERIMENT}


def _training(config: DictConfig) -> dict:
    """The part of a configuration that decides what the weights become."""
    return {key: value for key, value in _experiment(config).items() if key != _AFTER_THE_FIT}


def _hash(config: DictConfig) -> str:
    return hashlib.sha256(json.dumps(_experiment(config), sort_keys=True).encode()).hexdigest()[:16]


def _lock(run: Run) -> "FileLock":
    from filelock import FileLock, Timeout

    lock = FileLock(run.folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"{run.folder}: another process is training in it") from None
    return lock
