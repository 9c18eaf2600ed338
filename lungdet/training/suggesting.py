"""A learning rate or a batch size is suggested before anything is trained, by Lightning's tuner: `find=lr`.

Nothing that it does becomes a run: its folder holds a curve, and no config.yaml.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import lightning
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.tuner import Tuner
from omegaconf import DictConfig, OmegaConf

from lungdet.data.datamodule import RadiographDataModule
from lungdet.errors import InputError
from lungdet.machine import hardware, launching
from lungdet.machine.commands import override
from lungdet.machine.loglines import quieten
from lungdet.models.backbone import Backbone
from lungdet.models.classifier import Classifier
from lungdet.page.drawing import COLOURS, STYLE
from lungdet.runs.folder import Run, settled
from lungdet.training.fitting import build_data, build_model
from lungdet.training.trainer import build_trainer

log = logging.getLogger(__name__)

SMOOTHING = 0.98
"""Of Lightning's running mean of the loss: the share that a step leaves."""
SETTLING = 10
"""Steps before that mean is one of enough losses to go by."""
FALL = 0.97
"""What the loss has to come down to, of where it was then, to have fallen: it wavers by a hundredth or two."""


def suggest(config: DictConfig) -> float | int:
    """Try what `find` names on the configured model and data, and print the override to train with.

    Args:
        config: composed by Hydra, with the one key `learning_rate` or `batch_size` under `find`, and in that the
            arguments of Lightning's `Tuner.lr_find` or `Tuner.scale_batch_size`.

    Returns:
        The value that is suggested.

    Raises:
        InputError: there is none, a run is to go on, or several devices are to compute.
    """
    if config.resume is not None:
        raise InputError(
            f"find and resume={config.resume}: a run that goes on keeps what it has; leave one of them out"
        )
    if launching.processes(config.trainer) > 1:
        raise InputError(
            f"find and trainer.devices={config.trainer.devices}: one device finds it; say trainer.devices=1"
        )
    quieten()
    lightning.seed_everything(config.seed, verbose=False)
    folder = Path(config.run_dir)
    run = Run(folder, settled(config, folder))
    model = build_model(run, config.trust)
    data = build_data(run.config, model, config.trust)
    options = run.config.trainer
    arithmetic = hardware.choose(options.precision, options.memory_format, options.accelerator)
    data.trainer = trainer = build_trainer(run, model, arithmetic)
    data.prepare_data()
    data.setup()
    [(wanted, arguments)] = OmegaConf.to_container(config.find).items()
    return SUGGESTIONS[wanted](trainer, model, data, arguments, folder)


def _learning_rate(
    trainer: lightning.Trainer, model: Classifier, data: RadiographDataModule, arguments: Mapping, folder: Path
) -> float:
    """A tenth of where the loss is lowest, the curve kept in the folder."""
    require_one_rate(model)
    results = Tuner(trainer).lr_find(model, datamodule=data, update_attr=False, **arguments).results
    curve = pd.DataFrame({"learning_rate": results["lr"], "loss": unbiased(np.array(results["loss"]))})
    curve.to_csv(folder / "learning_rate.csv", index=False)
    rate = tenth_of_lowest(curve)
    _draw(curve, rate, folder / "learning_rate.png")
    log.info("the loss at each learning rate: %s", folder / "learning_rate.png")
    if rate is None:
        raise InputError(
            f"find=lr: in {len(curve)} steps no learning rate brought the loss down; give it more, "
            f"find.learning_rate.num_training={2 * arguments['num_training']}"
        )
    log.info("a tenth of where it is lowest: %s", override("model.learning_rate", float(f"{rate:.2g}")))
    return rate


def require_one_rate(model: Classifier) -> None:
    """Passes only a model whose layers all learn alike from the first step on: so Lightning's tuner has them.

    Raises:
        InputError: its backbone learns later, or more slowly.
    """
    backbone = model.backbone
    if isinstance(backbone, Backbone) and (backbone.unfreeze_at or {*backbone.rate_factors().values()} != {1.0}):
        raise InputError(
            "find=lr: it would have all layers learn alike; say model.backbone.unfreeze_at=null "
            "model.backbone.rate_factor=1 model.backbone.layer_decay=1, or set model.learning_rate"
        )


def unbiased(losses: np.ndarray) -> np.ndarray:
    """Lightning's smoothed losses (N,) without the zero that they start from.

    It corrects for that start too, but as if each step were the next one, so that the first loss is half of what it is.
    """
    step = np.arange(1, len(losses) + 1)
    return losses * (1 - SMOOTHING ** (step + 1)) / (1 - SMOOTHING**step)


def tenth_of_lowest(curve: pd.DataFrame) -> float | None:
    """A tenth of the learning rate at which the loss is lowest; None where it does not fall.

    Where the loss falls most steeply, which Lightning goes by, is decided by how the first losses waver.

    Args:
        curve: a row a step: `learning_rate`, rising, and `loss`, of which the first tell little of the rest.
    """
    settled = curve.iloc[SETTLING:]
    if settled.empty or settled["loss"].min() > FALL * settled["loss"].iloc[0]:
        return None
    return float(settled["learning_rate"][settled["loss"].idxmin()]) / 10


def _batch_size(
    trainer: lightning.Trainer, model: Classifier, data: RadiographDataModule, arguments: Mapping, folder: Path
) -> int:
    """The largest whose step fits in the GPU's memory, and that the training part fills."""
    require_gpu(trainer.strategy.root_device)
    size = Tuner(trainer).scale_batch_size(model, datamodule=data, max_val=len(data.rows("train")), **arguments)
    log.info("the largest that fits in memory: %s", override("data.batch_size", size))
    return size


def require_gpu(device: torch.device) -> None:
    """Passes only a device whose memory is its own.

    Raises:
        InputError: it is a CPU.
    """
    if device.type == "cpu":
        raise InputError(
            "find=batch_size: it fills a GPU's memory until no more fits, and this is a CPU, whose memory all programs "
            "share; set data.batch_size"
        )


SUGGESTIONS = {"learning_rate": _learning_rate, "batch_size": _batch_size}


def _draw(curve: pd.DataFrame, rate: float | None, path: Path) -> None:
    with plt.rc_context(STYLE):
        figure, plot = plt.subplots(figsize=(6, 4), layout="constrained")
        plot.semilogx(curve["learning_rate"], curve["loss"], color=COLOURS[0], linewidth=2)
        if rate is not None:
            plot.axvline(rate, color=COLOURS[1], linestyle=":", label=f"{rate:.2g}, a tenth of where it is lowest")
            plot.legend()
        plot.set(xlabel="learning rate", ylabel="training loss, smoothed")
        plot.xaxis.set_major_formatter("{x:g}")
        figure.savefig(path, dpi=120)
        plt.close(figure)
