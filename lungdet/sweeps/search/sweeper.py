"""Hydra's sweeper that searches for hyper-parameters, equally long for each model, and goes on where it was cut.

Every combination of what is given with commas (`model=cnn,cnn_lstm`) has an optuna study of its own, all in the sweep
folder's `search.sqlite`. They take turns, so that a search that was cut is balanced, too. Early stopping prunes.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from lungdet.configuration.jobs import jobs
from lungdet.errors import InputError, plain_errors
from lungdet.machine import ranks
from lungdet.machine.locking import exclusive
from lungdet.sweeps.search.combination import Combination, chosen, open_studies
from lungdet.sweeps.search.space import distribution, require_searchable

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

log = logging.getLogger(__name__)

NAME = "hydra_plugins.lungdet.Search"
"""What the sweeper is called in conf/sweep/optuna.yaml: Hydra makes none whose name begins otherwise."""


class Register(Callback):
    """Makes the sweeper known to Hydra in a multirun that asks for it, so that other starts don't import it."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Comes before Hydra makes its sweeper."""
        Plugins.instance().class_name_to_class[NAME] = Search  # nothing public: register() calls it by its module


class Search(Sweeper):
    """Lowers what the jobs return over `sweep.space`, in `sweep.trials` finished trials of each combination.

    Started again in the same folder, it launches the trials that a cut left with their own values, and then as many
    new ones as are missing. A trial that failed, or whose loss is no finite number, is kept as failed: it is not
    launched again, and the next start, not this one, makes up for it with other values.
    """

    def __init__(self, max_batch_size: int | None = None, params: Mapping[str, str] | None = None) -> None:
        """Takes what Hydra's own sweeper is configured with: an experiment's `params`. A batch is a turn's trials."""
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.hydra_context, self.config = hydra_context, config
        launcher = {"hydra_context": hydra_context, "task_function": task_function, "config": config}
        self.launcher = Plugins.instance().instantiate_launcher(**launcher)

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Search; the first exception of a job is raised when all the others are done."""
        with plain_errors():
            return self._search(arguments)

    def _search(self, arguments: list[str]) -> list[JobReturn]:
        try:
            import optuna
        except ImportError:
            raise InputError("sweep=optuna needs one package more: pip install 'lungdet[optuna]'") from None
        if ranks.count() > 1:
            raise InputError("sweep=optuna: each trial starts its processes itself; leave torchrun (or srun) out")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sweep, folder = self.config.sweep, Path(self.config.hydra.sweep.dir)
        if not isinstance(sweep.trials, int) or sweep.trials < 1:
            raise InputError(f"sweep.trials={sweep.trials}: at least one trial of each combination is needed")
        overrides, space = self._parsed(arguments)
        folder.mkdir(parents=True, exist_ok=True)
        busy = InputError(f"{folder}: another process is searching in it; choose another sweep.name")
        with exclusive(folder / ".lock", busy):
            OmegaConf.save(self.config, folder / "multirun.yaml")
            combinations = open_studies(folder / "search.sqlite", overrides, space, sweep.trials)
            log.info("searching %s; to go on with this search later: sweep.name=%s", ", ".join(space), sweep.name)
            return self._take_turns(combinations, space, sweep.seed)

    def _parsed(self, arguments: list[str]) -> tuple[list[list[str]], "dict[str, BaseDistribution]"]:
        """The overrides of each combination, and what is searched: `sweep.space`, overruled by the command line."""
        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        configured = parser.parse_overrides([f"{key}={text}" for key, text in (self.config.sweep.space or {}).items()])
        space, grid = {override.get_key_element(): override for override in configured}, {}
        params = [f"{key}={text}" for key, text in self.params.items()]
        for override in parser.parse_overrides([*params, *arguments]):
            key = override.get_key_element()
            space.pop(key, None), grid.pop(key, None)
            (space if override.is_sweep_override() and not override.is_choice_sweep() else grid)[key] = override
        if not space:
            raise InputError("sweep.space is empty: nothing to search; say 'model.learning_rate=interval(1e-4,1e-2)'")
        combinations = jobs([*grid.values()])
        for combination in combinations:
            require_searchable(space, loader.load_sweep_config(self.config, combination))
        return combinations, {key: distribution(override) for key, override in space.items()}

    def _take_turns(
        self, combinations: Sequence[Combination], space: "Mapping[str, BaseDistribution]", seed: int
    ) -> list[JobReturn]:
        returned, errors = [], []
        before = sum(len(combination.study.trials) for combination in combinations)  # jobs are counted on from there
        searched = f"++sweep.searched=[{','.join(key.lstrip('+') for key in space)}]"  # for evaluate.py to read
        while turn := [combination for combination in combinations if combination.todo]:
            trials = [(combination, combination.next_trial(space, seed)) for combination in turn]
            batch = [[*combination.overrides, *chosen(trial.params), searched] for combination, trial in trials]
            try:
                self.validate_batch_is_legal(batch)
            except Exception:
                for combination, trial in trials:
                    combination.fail(trial, "it cannot be composed")
                raise
            finished = self.launcher.launch(batch, initial_job_idx=before + len(returned))
            returned += finished
            for (combination, trial), job in zip(trials, finished, strict=True):
                errors += combination.record(trial, job)
        for combination in combinations:
            combination.conclude()
        if errors:
            raise errors[0]
        return returned
