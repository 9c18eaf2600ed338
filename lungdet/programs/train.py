"""One run: compose the configuration, start or continue the run, train.

    python train.py model=cnn_lstm
    python train.py -m model=cnn,cnn_lstm seed=0,1,2

What is heavy is imported when training begins, so that --help and --cfg answer at once.
"""

import hashlib
import json
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lungdet.configuration.program import CONF, run_program
from lungdet.errors import InputError, plain_errors
from lungdet.machine import ranks, requeue
from lungdet.machine.signals import Interrupted
from lungdet.runs import identity, multirun, starting
from lungdet.runs.folder import remove_logged
from lungdet.training import interruption


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(config: DictConfig) -> float:
    """Train one model; returns the best validation loss, for sweepers to minimise."""
    alone, overrides = HydraConfig.get().mode is RunMode.RUN, HydraConfig.get().overrides.task
    ranks.quieten()
    requeue.on_signal()
    with plain_errors(alone):
        if config.get("find") is not None:  # absent where no group is chosen
            from lungdet.training.suggesting import suggest

            try:
                return suggest(config)
            except (InputError, Interrupted):
                remove_logged(Path(config.run_dir))
                raise
        with starting.start(config, overrides) as run, interruption.advice(run):
            if run.finished and run.changed is None:
                return run.best_loss
            from lungdet.training.fitting import train

            return train(run, config.trust)


def start() -> None:
    """Train as the command line says."""
    run_program(main, "train")


def sweep_folder(name: str) -> str:
    """`multirun.sweep_folder`, and the end of the program where the name cannot be one."""
    with plain_errors():
        return multirun.sweep_folder(name)


def computes(*, _root_: DictConfig) -> str:
    """What a job computes: a search never lies in the folder of a run, nor of another search."""
    run, find = identity.fingerprint(_root_), _root_.get("find")
    if find is None:
        return run[:8]
    [(quantity, arguments)] = OmegaConf.to_container(find, resolve=True).items()
    words = json.dumps([run, arguments], sort_keys=True)
    return f"find_{quantity}_{hashlib.sha256(words.encode()).hexdigest()[:8]}"


# Folder names in conf/train.yaml. What a run computes names it, so that a multirun that is started again finds it.
OmegaConf.register_new_resolver("agreed", ranks.agreed, use_cache=True, replace=True)
OmegaConf.register_new_resolver("sweep_folder", sweep_folder, use_cache=True, replace=True)
OmegaConf.register_new_resolver("computes", computes, replace=True)
