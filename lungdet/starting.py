"""Which run a configuration asks for: a new folder, or one that was cut; a run in use is locked."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from lungdet import ranks
from lungdet.commands import command, override
from lungdet.runs import Run, RunError, find_runs, load_run

if TYPE_CHECKING:
    from filelock import FileLock

log = logging.getLogger(__name__)

# Where a run is written, resumed and reported, and where its images lie, does not change what it computes.
_NOT_THE_EXPERIMENT = ("run_dir", "resume", "outputs", "logger", "sweep", "hydra")
_NOT_THE_DATA = ("root", "store", "num_workers", "loader")
_AFTER_THE_FIT = "degrade"  # a group that can be asked of a finished run without training on


@contextmanager
def start(config: DictConfig, overrides: Sequence[str] = ()) -> Iterator[Run]:
    """The run that this configuration asks for: a new one, or with `resume` the one to continue.

    A folder that holds a run of the very same configuration already is that run: it goes on where it was cut, and is
    left as it is where it is finished. `resume=auto` continues the newest unfinished run of the same configuration
    under `outputs`, or starts a new one and says so. `resume=FOLDER` continues that run with its own configuration, the
    command line's single values (`trainer.max_epochs=50`) laid over it; `degrade=standard` is asked of a finished run
    without training on.

    The run is locked as long as the `with` block lasts: nobody else can continue it meanwhile. Of several processes
    that run the same command, the first decides.

    Args:
        config: composed by Hydra.
        overrides: what stood on the command line.

    Yields:
        The run, its `config` being the one to train with.

    Raises:
        RunError: there is nothing to continue, another process is at it, another configuration's run is in the folder,
            or the command line names another group.
    """
    if ranks.count() > 1:
        OmegaConf.resolve(config)  # what they agree on in it, all of them now: rank 0 alone would ask nobody later
    if ranks.rank():
        run = ranks.agreed(None)
        if run is None:
            raise RunError("the first process could not start the run, and says why")
        yield run
        return
    run = lock = None
    try:
        run, lock = _asked_for(config, overrides)
    finally:
        ranks.agreed(run)
    try:
        yield run
    finally:
        lock.release()


def fingerprint(config: DictConfig) -> str:
    """What a configuration computes, in sixteen letters and digits: equal for runs that would end alike."""
    return hashlib.sha256(json.dumps(_experiment(config), sort_keys=True).encode()).hexdigest()[:16]


def decides(override: str) -> bool:
    """Whether a word of the command line decides what a run computes, not only where it lies or how it is told."""
    group, _, key = re.split("[=@]", override.lstrip("+~"))[0].partition(".")
    return group not in _NOT_THE_EXPERIMENT and not (group == "data" and key in _NOT_THE_DATA)


def in_use(run: Run) -> bool:
    """Whether a process is training in a run, as far as the lock tells: not where it is another user's alone."""
    if not os.access(run.folder / ".lock", os.W_OK):
        return False
    try:
        _lock(run).release()
    except RunError:
        return True
    return False


def sweep_folder(name: str) -> str:
    """The folder of a multirun, which is its name; the first process's, where several run the same command.

    Raises:
        RunError: shells and Hydra would take the name for something else.
    """
    name = ranks.agreed(str(name))
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
        raise RunError(f"sweep.name={name}: letters, digits, -, _ and . are taken, a dot not at the beginning")
    return name


def _asked_for(config: DictConfig, overrides: Sequence[str]) -> tuple[Run, "FileLock"]:
    if config.resume == "auto":
        run, lock = _newest_unfinished(config)
        return (run, lock) if run is not None else _in_its_folder(config, overrides)
    if config.resume is not None:
        return _continued(load_run(config.resume), config, overrides)
    return _in_its_folder(config, overrides)


def _in_its_folder(config: DictConfig, overrides: Sequence[str]) -> tuple[Run, "FileLock"]:
    run = Run(Path(config.run_dir))
    there = (run.folder / "config.yaml").exists()
    if there and fingerprint(run.config) != fingerprint(config):
        raise RunError(
            f"{run.folder} holds a run of another configuration; choose another folder, or continue that one "
            f"with: {command('train.py', override('resume', run.folder))}"
        )
    run.folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(run)
    if there and [*overrides] not in run.asked:
        run.record(asked_again=[*run.environment.get("asked_again", []), [*overrides]])
    if there and run.finished:
        log.info("%s is finished already", run.folder)
        before, now = (OmegaConf.select(one, "data.root") for one in (run.config, config))
        if before != now:  # moved, or others of the same layout
            log.warning("it was trained on the images in %s; for others, in %s, name another folder", before, now)
    elif there and run.can_continue:
        log.info("continuing %s", run.folder)
    else:
        log.info("run folder %s", run.folder)
        run.create(config, overrides)
    return run, lock


def _newest_unfinished(config: DictConfig) -> tuple[Run, "FileLock"] | tuple[None, None]:
    runs = find_runs(config.outputs) if Path(config.outputs).is_dir() else []
    wanted = fingerprint(config)
    runs = [run for run in runs if not run.finished and fingerprint(run.config) == wanted]
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
    values = {}
    for key in config:
        if key not in _NOT_THE_EXPERIMENT:
            value = config[key]
            values[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    values["data"] = {key: value for key, value in values.get("data", {}).items() if key not in _NOT_THE_DATA}
    return values


def _training(config: DictConfig) -> dict:
    """The part of a configuration that decides what the weights become."""
    return {key: value for key, value in _experiment(config).items() if key != _AFTER_THE_FIT}


def _lock(run: Run) -> "FileLock":
    from filelock import FileLock, Timeout

    lock = FileLock(run.folder / ".lock")
    try:
        lock.acquire(timeout=1)  # who lists runs holds it for a moment
    except Timeout:
        raise RunError(f"{run.folder}: another process is training in it") from None
    return lock
