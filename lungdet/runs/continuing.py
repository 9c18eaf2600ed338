"""A run goes on from where it was cut: how far it has come, and what it may be told anew."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from lungdet.configuration.trainer import require_trainable
from lungdet.errors import RunError
from lungdet.machine.commands import key_of, override
from lungdet.runs.folder import Run, settled
from lungdet.runs.identity import AFTER_THE_FIT, MAY_CHANGE, OF_EPOCHS, PLANS_NO_END
from lungdet.runs.locking import locked
from lungdet.runs.reading import read_checkpoint

OF_THE_COMMAND = ("resume", "outputs", "sweep", "trust")
"""What each command says for itself: where it looks, whom it trusts, a multirun's folder."""

log = logging.getLogger(__name__)


def going_on(run: Run, config: DictConfig, overrides: Sequence[str] = ()) -> Run:
    """A run that was cut, served and logged as this command, which computes the same, has it.

    Raises:
        RunError: it is damaged.
    """
    _progress(run)
    log.info("continuing %s", run.folder)
    return Run(run.folder, settled(config, run.folder), words=tuple(overrides))


def continued(run: Run, config: DictConfig, overrides: Sequence[str], locks: ExitStack) -> Run:
    """The run that `resume=FOLDER` names, locked, with what the command line tells it anew.

    Raises:
        RunError: it is damaged, another process is at it, nothing is left to do, or something else is to change.
    """
    groups = ("model", "data", "optimizer", "schedule", "trainer", "logger")
    missing = [name for name in groups if not OmegaConf.is_dict(run.config.get(name))]
    if missing:
        raise RunError(f"{run.folder / 'config.yaml'} is damaged: it has no {', '.join(missing)}; start a new run")
    changes = _changes(run, config, overrides)
    _require_end(run, changes.get("trainer.max_epochs"))
    changed = settled(run.config, run.folder)
    for key, value in changes.items():
        OmegaConf.update(changed, key, value, merge=False)
    require_trainable(changed)
    locks.enter_context(locked(run))
    end = _progress(run).end(changed.trainer)
    to_train = not changes.keys().isdisjoint(OF_EPOCHS)
    if end and to_train:
        raise RunError(f"resume={run.folder}: no epoch would be trained, since {end}")
    if run.finished and not to_train and AFTER_THE_FIT not in changes:
        raise RunError(
            f"resume={run.folder}: the run is finished; to train on, raise trainer.max_epochs or trainer.early_stopping"
        )
    log.info("continuing %s", run.folder)
    return Run(run.folder, changed, trains_on=to_train)


def _changes(run: Run, config: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """What the command line tells a run anew, by key.

    Raises:
        RunError: a word of it does not name a key of `MAY_CHANGE`, or adds or deletes one.
    """
    changes = {}
    for word in overrides:
        key = key_of(word)
        if key.split(".")[0] in OF_THE_COMMAND:
            continue
        known = next((known for known in MAY_CHANGE if f"{key}.".startswith(f"{known}.")), None)
        if known is None:
            raise RunError(
                f"resume={run.folder}: {key} cannot change in a run that goes on, whose epochs and checkpoint are of "
                f"what it was. Start a new run, or one from its weights: "
                f"{override('model.backbone.init_from', run.folder)}. What may change: {', '.join(MAY_CHANGE)}"
            )
        if word[0] in "+~" and known != AFTER_THE_FIT:
            raise RunError(
                f"resume={run.folder}: {word}: to a run that goes on no key is added, and none is taken from it; "
                f"give {key}=VALUE"
            )
        key = known if known == AFTER_THE_FIT else key
        changes[key] = OmegaConf.select(config, key)
    return changes


def _require_end(run: Run, epochs: int | None) -> None:
    """Passes only the number of epochs that the run's schedule was planned for, if it was for one.

    Raises:
        RunError: it was for another.
    """
    planned, schedule = run.config.trainer.get("max_epochs"), run.config.schedule.get("_target_")
    if epochs not in (None, planned) and schedule not in PLANS_NO_END:
        raise RunError(
            f"resume={run.folder}: trainer.max_epochs={epochs}: the learning rate of this run ({schedule}) was planned "
            f"for {planned} epochs and has come down by then. Start a new run of {epochs}, or one from its weights: "
            f"{override('model.backbone.init_from', run.folder)}"
        )


class _Progress(NamedTuple):
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


def _progress(run: Run) -> _Progress:
    """How far a run has come, by its last checkpoint.

    Raises:
        RunError: there is none, it is damaged, or metrics.csv lacks one of the epochs before it.
    """
    path = run.checkpoint("last")
    try:
        checkpoint = read_checkpoint(path)
        stalled = next(state["wait_count"] for state in checkpoint["callbacks"].values() if "wait_count" in state)
        progress = _Progress(checkpoint["epoch"] + 1, stalled)
    except RunError:
        raise
    except Exception as error:  # whatever a damaged file makes torch raise
        raise RunError(f"{path} is damaged ({error}); start a new run in another folder") from error
    if missing := sorted(set(range(progress.epochs)) - set(run.epochs["epoch"])):
        raise RunError(
            f"{run.folder / 'metrics.csv'} is damaged: {progress.epochs} epochs are trained and it lacks "
            f"{', '.join(str(epoch) for epoch in missing)}; put a copy of it back, or start a new run in another folder"
        )
    return progress
