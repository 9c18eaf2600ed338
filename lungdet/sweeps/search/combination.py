"""The study of one combination, such as a model: which trials there were, the next one, and what came of it."""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lungdet.errors import InputError
from lungdet.machine.commands import command, key_of
from lungdet.runs.identity import decides
from lungdet.runs.multirun import differing

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger(__name__)


@dataclass
class Combination:
    """One of the things that are searched for apart."""

    overrides: list[str]
    label: str
    study: "Study"
    todo: list[int | None]
    """Numbers of the trials that a cut left, then None for each new one."""

    def next_trial(self, space: "Mapping[str, BaseDistribution]", seed: int) -> "Trial | FrozenTrial":
        """One that was cut, or a new one, whose values follow from the seed, its number and the losses so far."""
        import numpy as np
        from optuna.samplers import TPESampler

        number = self.todo.pop(0)
        if number is not None:
            return self.study.trials[number]
        drawn = np.random.SeedSequence([seed, len(self.study.trials)]).generate_state(1)
        self.study.sampler = TPESampler(seed=int(drawn[0]))  # one for all would draw the same again after a cut
        return self.study.ask(dict(space))

    def record(self, trial: "Trial | FrozenTrial", job: "JobReturn") -> list[Exception]:
        """Tell the study what came of a trial; returns the exception that the job raised, if it did."""
        folder = job.hydra_cfg.hydra.runtime.output_dir
        try:
            loss = job.return_value
        except Exception as error:
            self.fail(trial, f"{type(error).__name__}: {error}; in {folder}")
            return [error]
        if not isinstance(loss, int | float) or not math.isfinite(loss):
            self.fail(trial, f"its validation loss is {loss}; in {folder}")
            return []
        self.study.set_user_attr(f"folder of trial {trial.number}", folder)
        self.study.tell(trial.number, loss)
        log.info("%s, trial %d: validation loss %.4f", self.label, trial.number, loss)
        return []

    def fail(self, trial: "Trial | FrozenTrial", reason: str) -> None:
        """Tell the study that a trial has no loss."""
        from optuna.trial import TrialState

        self.study.tell(trial.number, state=TrialState.FAIL)
        log.warning("%s, trial %d failed (%s): %s", self.label, trial.number, " ".join(chosen(trial.params)), reason)

    def conclude(self) -> None:
        """Say which trial was best, where it is, and what trains it with other seeds."""
        from optuna.trial import TrialState

        states = [trial.state for trial in self.study.trials]
        finished, failed = states.count(TrialState.COMPLETE), states.count(TrialState.FAIL)
        if not finished:
            log.warning("%s: no trial was finished, %d failed", self.label, failed)
            return
        best = self.study.best_trial
        values, folder = chosen(best.params), self.study.user_attrs[f"folder of trial {best.number}"]
        outcome = f"lowest validation loss {best.value:.4f} of {finished} finished trials ({failed} failed)"
        log.info("%s: %s: %s, in %s", self.label, outcome, " ".join(values), folder)
        seed = int(next((word.removeprefix("seed=") for word in self.overrides if word.startswith("seed=")), 0))
        overrides = [word for word in self.overrides if key_of(word).partition(".")[0] not in ("sweep", "seed")]
        seeds = f"seed={seed + 1},{seed + 2},{seed + 3}"
        log.info("with other seeds: %s", command("train.py -m", *overrides, *values, seeds))


def open_studies(
    path: Path, grid: Sequence[list[str]], space: "Mapping[str, BaseDistribution]", trials: int
) -> list[Combination]:
    """Each combination's study, new or as far as it came, and what there is to do in it.

    Args:
        path: the sqlite file.
        grid: each combination's overrides, the same keys in the same order.
        space: what new trials are drawn from.
        trials: how many are to be finished in each study.

    Raises:
        InputError: a study holds values of another kind than would be drawn now.
    """
    from optuna import create_study
    from optuna.trial import TrialState
    from sqlalchemy import URL

    storage = URL.create("sqlite", database=str(path)).render_as_string()  # a ? or %20 in it is the folder's
    combinations = []
    for overrides in grid:
        deciding = [word for word in overrides if decides(word)]  # with others of these it is another study
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", "_".join(deciding)).strip("-") or "search"
        study = create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)
        for trial in study.trials:
            _require_compatible(trial.distributions, space, path)
        states = [trial.state for trial in study.trials]
        finished = states.count(TrialState.COMPLETE)
        cut = [number for number, state in enumerate(states) if state is TrialState.RUNNING]
        label, todo = " ".join(differing(grid, overrides) or deciding), cut + [None] * (trials - finished - len(cut))
        log.info("%s: %d of %d trials are finished, %d were cut", label, finished, trials, len(cut))
        combinations.append(Combination(overrides, label, study, todo))
    return combinations


def chosen(values: Mapping[str, Any]) -> list[str]:
    """A trial's values as overrides, with four digits, which are as good and can be read and typed."""
    return [f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()]


def _require_compatible(
    before: "Mapping[str, BaseDistribution]", space: "Mapping[str, BaseDistribution]", path: Path
) -> None:
    from optuna.distributions import check_distribution_compatibility

    for key in before.keys() & space.keys():
        try:
            check_distribution_compatibility(before[key], space[key])
        except ValueError:
            raise InputError(
                f"{path}: {key} was drawn from {before[key]} and is now to be from {space[key]}, which one search "
                "cannot hold; choose another sweep.name"
            ) from None
