"""Which run a configuration asks for: a new folder, or one that was cut; a run in use is locked."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, read_write

from lungdet.configuration.trainer import require_trainable
from lungdet.errors import RunError, mistake
from lungdet.instantiation import instantiate, require_trusted
from lungdet.machine import ranks
from lungdet.machine.commands import command, override
from lungdet.runs.continuing import continued, going_on
from lungdet.runs.folder import Run, find_runs, load_run
from lungdet.runs.identity import fingerprint, require_data
from lungdet.runs.locking import locked

log = logging.getLogger(__name__)


@contextmanager
def start(config: DictConfig, overrides: Sequence[str] = ()) -> Iterator[Run]:
    """The run that this configuration asks for: a new one, or with `resume` the one to continue.

    A folder that holds a run of the very same configuration already is that run: it goes on where it was cut, and is
    left as it is where it is finished, if the data are still the same. `resume=auto` continues the newest unfinished
    run of the same configuration under `outputs`, or starts a new one and says so. `resume=FOLDER` continues that run
    with its own configuration, but for those of `MAY_CHANGE` that the command line names; `degrade=standard` is asked
    of a finished run without training on. Nothing is written into a run that was there before all this is checked.

    Where a mistake of the user's ends it before an epoch is whole, its folder goes again.

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
    with ExitStack() as locks:
        try:
            require_trainable(config)
            run = _asked_for(config, overrides, locks)
        finally:
            ranks.agreed(run)
            _log_into(run)
        try:
            yield run
        except Exception as error:
            if mistake(error) is not None and not (run.has_learnt or run.finished):
                run.discard()
            raise


def _asked_for(config: DictConfig, overrides: Sequence[str], locks: ExitStack) -> Run:
    if config.resume == "auto":
        return _newest_unfinished(config, locks) or _in_its_folder(config, overrides, locks)
    if config.resume is not None:
        if not isinstance(config.resume, str):
            raise RunError(f"resume={config.resume}: auto, or one run folder, is needed")
        return continued(load_run(config.resume), config, overrides, locks)
    return _in_its_folder(config, overrides, locks)


def _in_its_folder(config: DictConfig, overrides: Sequence[str], locks: ExitStack) -> Run:
    trust = tuple(config.get("trust") or ())
    require_trusted(config, trust)
    run = Run(Path(config.run_dir))
    run.require_room()
    run.folder.mkdir(parents=True, exist_ok=True)
    locks.enter_context(locked(run))
    exists = (run.folder / "config.yaml").exists()  # only now: another process may have trained here until a moment ago
    if exists and fingerprint(run.config) != fingerprint(config):
        raise RunError(
            f"{run.folder} holds a run of another configuration; choose another folder, or continue that one "
            f"with: {command('train.py', override('resume', run.folder))}"
        )
    if exists and run.finished:
        data = json.dumps(OmegaConf.to_container(config.data, resolve=True))
        require_data(run, _identity(data, trust))
        run.ask_again(overrides)
        log.info("%s is finished already", run.folder)
    elif exists and run.can_continue:
        run = going_on(run, config, overrides)
    else:
        log.info("run folder %s", run.folder)
        run.create(config, overrides)
    return run


def _newest_unfinished(config: DictConfig, locks: ExitStack) -> Run | None:
    computes, unfinished = fingerprint(config), []
    for run in find_runs(config.outputs) if Path(config.outputs).is_dir() else []:
        try:
            if not run.finished and run.can_continue and fingerprint(run.config) == computes:
                unfinished.append(run)
        except RunError as error:
            log.warning("resume=auto passes over a run: %s", error)
    for run in sorted(unfinished, key=lambda run: run.environment.get("started", ""), reverse=True):
        try:
            locks.enter_context(locked(run))
        except RunError:  # somebody is at it
            continue
        except OSError as error:  # another user's run, or a link in the lock's place
            log.warning("resume=auto passes over a run: %s", error)
            continue
        return run if run.finished else going_on(run, config)  # whoever was at it has finished it by now
    log.info("resume=auto: no unfinished run of this configuration under %s; starting a new one", config.outputs)
    return None


@cache
def _identity(data: str, trust: tuple[str, ...]) -> dict[str, dict]:
    """What the data are that a configuration describes: a multirun's finished jobs ask it one after another."""
    return instantiate("data", OmegaConf.create(json.loads(data)), trust).identity


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
