"""A finished run's network: its best weights, and a trainer that it predicts with."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from tempfile import TemporaryDirectory

import lightning
import torch

from lungdet.instantiation import instantiate
from lungdet.machine import hardware
from lungdet.machine.hardware import Arithmetic
from lungdet.machine.loglines import quieten
from lungdet.models.backbone import untrained
from lungdet.models.classifier import Classifier
from lungdet.runs.folder import Run

log = logging.getLogger(__name__)


def network(run: Run, trust: Sequence[str] = ()) -> Classifier:
    """The run's model with its best weights.

    Args:
        run: with a best checkpoint.
        trust: packages whose classes the run may name.

    Raises:
        InputError: see `instantiate`.
        RunError: see `Run.weights`.
    """
    model = instantiate(f"{run.folder}: model", untrained(run.config.model), trust)
    model.load_state_dict(run.weights())
    return model


def randomised(run: Run, trust: Sequence[str] = ()) -> Classifier:
    """The run's model with random weights, always the same ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return instantiate(f"{run.folder}: model", untrained(run.config.model), trust)


@contextmanager
def predicting(run: Run, model: Classifier) -> Iterator[lightning.Trainer]:
    """Within the block a trainer that the run's model predicts with, in the precision and layout it was trained in."""
    trained = run.config.trainer
    accelerator = "cpu" if trained.accelerator == "cpu" else "auto"
    arithmetic = _computed(run.name, str(run.folder), trained.precision, trained.memory_format, accelerator)
    model.to(memory_format=getattr(torch, arithmetic.memory_format))
    quieten()
    # In a root of its own: under SLURM, Lightning loads any hpc_ckpt_* that lies there, and not the model's weights.
    with TemporaryDirectory() as root, hardware.memory_kept() if model.visits == 1 else nullcontext():  # as in training
        yield lightning.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=arithmetic.precision,
            default_root_dir=root,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )


@cache  # one command asks more than once, for predictions and for maps, and says it once
def _computed(name: str, folder: str, precision: str, memory_format: str, accelerator: str) -> Arithmetic:
    """How to compute: as in training, or with a warning as this machine can."""
    if hardware.computes(precision, accelerator):
        return _choose(precision, memory_format, accelerator)
    arithmetic = _choose("auto", memory_format, accelerator)
    log.warning("%s was trained in %s, which is for GPUs, and is scored in %s", name, precision, arithmetic.precision)
    return arithmetic


_choose = cache(hardware.choose)
"""Of several runs that were trained alike it is said once, too."""
