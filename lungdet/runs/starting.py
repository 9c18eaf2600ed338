"""Which run a configuration asks for: a new folder, or one that was cut; a run in use is locked."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, read_write

from lungdet.errors import InputError
from lungdet.instantiation import instantiate, require_trusted
from lungdet.machine import ranks
from lungdet.machine.commands import command, override
from lungdet.runs.folder import Run, RunError, find_runs, load_run, read_checkpoint, settled

if TYPE_CHECKING:
    from filelock import FileLock

log = logging.getLogger(__name__)

# Where a run is written, resumed and reported, and how its images are served, does not change what it computes.
_NOT_THE_EXPERIMENT = ("run_dir", "resume", "outputs", "logger", "sweep", "hydra", "trust")
_NOT_THE_DATA = ("store", "num_workers", "loader")
_AFTER_THE_FIT = "degrade"  # a group that can be asked of a finished run without training on

# What `resume=RUN` may tell a run anew. All else stands in its checkpoint, or would make it another run.
_OF_EPOCHS = ("trainer.max_epochs", "trainer.early_stopping", "trainer.gradient_clip_val", "trainer.compile")
_OF_THE_MACHINE = ("trainer.accelerator", "trainer.devices", "trainer.num_nodes")
_OF_SERVING = ("data.root", "data.store", "data.num_workers", "data.loader", "logger")
MAY_CHANGE = (*_OF_EPOCHS, *_OF_THE_MACHINE, *_OF_SERVING, _AFTER_THE_FIT)
_OF_THE_COMMAND = ("resume", "outputs", "sweep", "trust")  # where it looks, whom it trusts, a multirun's folder


@contextmanager
def start(config: DictConfig, overrides: Sequence[str] = ()) -> Iterator[Run]:
    """The run that this configuration asks for: a new one, or with `resume` the one to continue.

    A folder that holds a run of the very same configuration already is that run: it goes on where it was cut, and is
    left as it is where it is finished, if the data are still the same. `resume=auto` continues the newest unfinished
    run of the same configuration under `outputs`, or starts a new one and says so. `resume=FOLDER` continues that run
    with its own configuration, but for those of `MAY_CHANGE` that the command line names; `degrade=standard` is asked
    of a finished run without training on. Nothing is written into a run that was there before all this is checked.

    The run is locked as long as the `with` block lasts: nobody else can continue it meanwhile. Of several processes
    that run the same command, the first decides.

    Args:
        config: composed by Hydra.
        overrides: what stood on the command line.

    Yields:
        The run, its `config` being the one to train with.

    Raises:
        RunError: there is nothing to continue, the run is damaged or of other data, another process is at it, another
            configuration's run is in the folder, or the command line names what cannot change.
    """
    if ranks.count() > 1:
        OmegaConf.resolve(config)  # what they agree on in it, all of them now: rank 0 alone would ask nobody later
        ranks.gathered(None)  # by now each has made the folder that Hydra logs into, and it may go
    if ranks.rank():
        run = ranks.agreed(None)
        if run is None:
            raise RunError("the first process could not start the run, and says why")
        yield run
        return
    run = None
    with ExitStack() as held:
        try:
            _require_numbers(config)
            run = _asked_for(config, overrides, held)
        finally:
            ranks.agreed(run)
            _log_into(run)
        yield run


def fingerprint(config: DictConfig) -> str:
    """What a configuration computes, in sixteen letters and digits: equal for runs that would end alike."""
    return hashlib.sha256(json.dumps(_experiment(config), sort_keys=True).encode()).hexdigest()[:16]


def decides(override: str) -> bool:
    """Whether a word of the command line decides what a run computes, not only where it lies or how it is told."""
    group, _, key = re.split("[=@]", override.lstrip("+~"))[0].partition(".")
    return group not in _NOT_THE_EXPERIMENT and not (group == "data" and key in _NOT_THE_DATA)


def in_use(run: Run) -> bool:
    """Whether a process is training in a run, as far as the lock tells: not where it is another user's alone."""
    lock = run.folder / ".lock"
    if lock.is_symlink() or not os.access(lock, os.W_OK):  # a link is nobody's lock, and none is followed
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


def _asked_for(config: DictConfig, overrides: Sequence[str], held: ExitStack) -> Run:
    if config.resume == "auto":
        return _newest_unfinished(config, held) or _in_its_folder(config, overrides, held)
    if config.resume is not None:
        return _continued(load_run(config.resume), config, overrides, held)
    return _in_its_folder(config, overrides, held)


def _in_its_folder(config: DictConfig, overrides: Sequence[str], held: ExitStack) -> Run:
    require_trusted(config, config.get("trust", ()))
    run = Run(Path(config.run_dir))
    there = (run.folder / "config.yaml").exists()
    if there and fingerprint(run.config) != fingerprint(config):
        raise RunError(
            f"{run.folder} holds a run of another configuration; choose another folder, or continue that one "
            f"with: {command('train.py', override('resume', run.folder))}"
        )
    run.folder.mkdir(parents=True, exist_ok=True)
    held.callback(_lock(run).release)
    if there and run.finished:
        run.require_data(instantiate("data", config.data, config.get("trust", ())).identity)
        run.ask_again(overrides)
        log.info("%s is finished already", run.folder)
    elif there and run.can_continue:
        run = _going_on(run, config, overrides)
    else:
        log.info("run folder %s", run.folder)
        run.create(config, overrides)
    return run


def _newest_unfinished(config: DictConfig, held: ExitStack) -> Run | None:
    runs = find_runs(config.outputs) if Path(config.outputs).is_dir() else []
    unfinished = _unfinished(runs, fingerprint(config))
    for run in sorted(unfinished, key=lambda run: run.environment.get("started", ""), reverse=True):
        try:
            held.callback(_lock(run).release)
        except RunError:  # somebody is at it
            continue
        return _going_on(run, config)
    log.info("resume=auto: no unfinished run of this configuration under %s; starting a new one", config.outputs)
    return None


def _unfinished(runs: Sequence[Run], wanted: str) -> Iterator[Run]:
    """Those of one `fingerprint` that have a checkpoint to go on from."""
    for run in runs:
        try:
            if not run.finished and run.can_continue and fingerprint(run.config) == wanted:
                yield run
        except RunError as error:
            log.warning("resume=auto passes over a run: %s", error)


def _going_on(run: Run, config: DictConfig, overrides: Sequence[str] = ()) -> Run:
    """A run that was cut, served and logged as this command, which computes the same, has it.

    Raises:
        RunError: it is damaged.
    """
    _reached(run)
    log.info("continuing %s", run.folder)
    return Run(run.folder, settled(config, run.folder), words=tuple(overrides))


def _continued(run: Run, config: DictConfig, overrides: Sequence[str], held: ExitStack) -> Run:
    asked = f"resume={run.folder}"
    lost = [group for group in ("model", "data", "trainer", "logger") if not OmegaConf.is_dict(run.config.get(group))]
    if lost:
        raise RunError(f"{run.folder / 'config.yaml'} is damaged: it has no {', '.join(lost)}; start a new run")
    changes = _changes(run, config, overrides)
    changed = settled(run.config, run.folder)
    for key, value in changes.items():
        OmegaConf.update(changed, key, value, merge=False)
    _require_numbers(changed)
    held.callback(_lock(run).release)
    end = _reached(run).end(changed.trainer)
    to_train = not changes.keys().isdisjoint(_OF_EPOCHS)
    if end and to_train:
        raise RunError(f"{asked}: no epoch would be trained, since {end}")
    if run.finished and not to_train and _AFTER_THE_FIT not in changes:
        raise RunError(f"{asked}: the run is finished; to train on, raise trainer.max_epochs or trainer.early_stopping")
    log.info("continuing %s", run.folder)
    return Run(run.folder, changed, trains_on=to_train)


def _changes(run: Run, config: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """What the command line tells a run anew, by key.

    Raises:
        RunError: a word of it does not name a key of `MAY_CHANGE`, or adds or deletes one.
    """
    changes = {}
    for word in overrides:
        key = re.split("[=@]", word.lstrip("+~"))[0]
        if key.split(".")[0] in _OF_THE_COMMAND:
            continue
        known = next((known for known in MAY_CHANGE if f"{key}.".startswith(f"{known}.")), None)
        if known is None:
            raise RunError(
                f"resume={run.folder}: {key} cannot change in a run that goes on, whose epochs and checkpoint are of "
                f"what it was. Start a new run, or one from its weights: "
                f"{override('model.backbone.init_from', run.folder)}. What may change: {', '.join(MAY_CHANGE)}"
            )
        if word[0] in "+~" and known != _AFTER_THE_FIT:
            raise RunError(
                f"resume={run.folder}: {word}: to a run that goes on no key is added, and none is taken from it; "
                f"give {key}=VALUE"
            )
        key = known if known == _AFTER_THE_FIT else key
        changes[key] = OmegaConf.select(config, key)
    return changes


class _Reached(NamedTuple):
    """How far a run has come."""

    epochs: int
    stalled: int  # epochs since the lowest validation loss

    def end(self, trainer: DictConfig) -> str | None:
        """Why a trainer would train no further epoch; None where it would."""
        if -1 < trainer.max_epochs <= self.epochs:
            return f"{self.epochs} are trained already; give trainer.max_epochs={self.epochs + 1} or more"
        patience = trainer.get("early_stopping")
        if patience is not None and self.stalled >= patience:
            return (
                f"{self.stalled} epochs have brought no lower validation loss already; give "
                f"trainer.early_stopping={self.stalled + 1} or more, or null"
            )
        return None


def _reached(run: Run) -> _Reached:
    """How far a run has come, by its last checkpoint.

    Raises:
        RunError: there is none, it is damaged, or metrics.csv lacks one of the epochs before it.
    """
    path = run.checkpoint("last")
    try:
        checkpoint = read_checkpoint(path)
        stalled = next(state["wait_count"] for state in checkpoint["callbacks"].values() if "wait_count" in state)
        reached = _Reached(checkpoint["epoch"] + 1, stalled)
    except RunError:
        raise
    except Exception as error:  # whatever a damaged file makes torch raise
        raise RunError(f"{path} is damaged ({error}); start a new run in another folder") from error
    if missing := sorted(set(range(reached.epochs)) - set(run.epochs["epoch"])):
        raise RunError(
            f"{run.folder / 'metrics.csv'} is damaged: {reached.epochs} epochs are trained and it lacks "
            f"{', '.join(str(epoch) for epoch in missing)}; put a copy of it back, or start a new run in another folder"
        )
    return reached


def _require_numbers(config: DictConfig) -> None:
    """Passes only a seed that can be drawn from, and a trainer that can tell when to end.

    Raises:
        InputError: `seed`, trainer.max_epochs or trainer.early_stopping is no such number.
    """
    epochs, patience = config.trainer.get("max_epochs"), config.trainer.get("early_stopping")
    if not (type(config.seed) is int and 0 <= config.seed < 2**32):
        raise InputError(f"seed={config.seed}: a whole number from 0 to {2**32 - 1} is needed")
    if not (type(epochs) is int and (epochs >= 1 or epochs == -1)):
        raise InputError(f"trainer.max_epochs={epochs}: at least one epoch is needed (-1: no end)")
    if not (patience is None or (type(patience) is int and patience >= 1)):
        raise InputError(f"trainer.early_stopping={patience}: at least one epoch is needed (null: never)")


def _log_into(run: Run | None) -> None:
    """Let the run's own train.log go on, not one in the folder that Hydra has made for a new run; that folder goes."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import configure_log

    if not HydraConfig.initialized():
        return
    hydra = HydraConfig.get()
    new_log = Path(hydra.runtime.output_dir) / f"{hydra.job.name}.log"
    if (new_log.parent / "config.yaml").exists() or not new_log.exists():
        return
    if run is not None:
        own_log = run.folder.absolute() / new_log.name
        if own_log.is_symlink():  # the run may be anybody's, and would have us write wherever it leads
            own_log.unlink()
        with own_log.open("a") as lines:
            lines.write(new_log.read_text())
        for handler in hydra.job_logging.handlers.values():  # from here processes of the run's own have it, too
            if Path(handler.get("filename", "")) == new_log:
                with read_write(handler):
                    handler.filename = str(own_log)
        configure_log(hydra.job_logging, hydra.verbose)
    if run is not None or not new_log.stat().st_size:
        new_log.unlink()
        with suppress(OSError):  # something else is in it
            new_log.parent.rmdir()


def _experiment(config: DictConfig) -> dict:
    """The part of a configuration that decides what a run computes."""
    values = {}
    for key in config:
        if key not in _NOT_THE_EXPERIMENT:
            value = config[key]
            values[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    values["data"] = {key: value for key, value in (values.get("data") or {}).items() if key not in _NOT_THE_DATA}
    return values


def _lock(run: Run) -> "FileLock":
    from filelock import FileLock, Timeout

    lock = FileLock(run.folder / ".lock")
    if Path(lock.lock_file).is_symlink():
        raise RunError(f"{lock.lock_file}: a link in place of the lock; delete it")
    try:
        lock.acquire(timeout=1)  # who lists runs holds it for a moment
    except Timeout:
        raise RunError(f"{run.folder}: another process is training in it") from None
    return lock
