"""Runs of a few seconds, for tests that need real ones."""

from pathlib import Path

import torch
from omegaconf import DictConfig

from lungdet.machine.commands import override
from lungdet.runs import starting
from lungdet.runs.folder import Run, load_run
from lungdet.training import fitting
from tests.calling import composed


def small(folder: Path, table: Path) -> list[str]:
    """Words for a run in fp32 and without loader processes, so that two runs can be equal to the last bit."""
    sizes = ["data.image_size=32", "data.batch_size=16", "data.num_workers=0", "trainer.precision=32-true"]
    choices = ["data=table", f"data.table={table}", *sizes, "trainer.max_epochs=3", "logger=csv"]
    return [*choices, override("outputs", folder)]


def configured(folder: Path, table: Path, *changes: str) -> DictConfig:
    """What `python train.py` composes of these words and changes; the run's folder is runs/new."""
    return composed("train", *small(folder, table), f"run_dir={folder}/runs/new", *changes)


def trained(config: DictConfig, *overrides: str) -> Run:
    """The run, trained in this process; `overrides` are the command line's where it is continued."""
    with starting.start(config, overrides) as run:
        fitting.train(run)
    return load_run(run.folder)


def weights(run: Run, which: str = "last", of: str = "state_dict") -> dict[str, torch.Tensor]:
    """Tensors of a run's best or last checkpoint by name; `of` them those that were validated, or that learn."""
    return torch.load(run.checkpoint(which), weights_only=True)[of]
