"""A learning rate or a batch size is suggested before anything is trained, by Lightning's tuner: `find=lr`.

Nothing that it does becomes a run: its folder holds what was tried, as a table and drawn, and no config.yaml.
"""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import lightning
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.tuner import Tuner
from matplotlib.ticker import EngFormatter
from omegaconf import DictConfig, OmegaConf

from lungdet.data.datamodule import RadiographDataModule
from lungdet.errors import InputError, require_whole
from lungdet.machine import hardware, launching
from lungdet.machine.commands import override
from lungdet.machine.loglines import quieten
from lungdet.machine.signals import Interrupted, raising
from lungdet.models.backbone import Backbone
from lungdet.models.classifier import Classifier
from lungdet.page.drawing import COLOURS, STYLE
from lungdet.runs.folder import Run, settled
from lungdet.training import columns
from lungdet.training.dashboards import log_search
from lungdet.training.fitting import build_data, build_model
from lungdet.training.trainer import build_trainer

log = logging.getLogger(__name__)

SMOOTHING = 0.98
"""Of Lightning's running mean of the loss: the share that a step leaves."""
SETTLING = 10
"""Steps before that mean is one of enough losses to go by."""
FALL = 0.97
"""What the loss has to come down to, of where it was then, to have fallen: it wavers by a hundredth or two."""

GRID = "#d0d7de"

AXES = {
    "learning_rate": "learning rate", "loss": "training loss, smoothed",
    "batch_size": "batch size", "memory_bytes": "peak memory",
}  # fmt: skip


def suggest(config: DictConfig) -> float | int:
    """Try what `find` names on the configured model and data, and print the override to train with.

    Args:
        config: composed by Hydra, with the one key `learning_rate` or `batch_size` under `find`, and in that the
            arguments of Lightning's `Tuner.lr_find` or `Tuner.scale_batch_size`.

    Returns:
        The value that is suggested.

    Raises:
        InputError: there is none, a run is to go on or lies in the folder, or several devices are to compute.
    """
    if config.resume is not None:
        raise InputError(
            f"find and resume={config.resume}: a run that goes on keeps what it has; leave one of them out"
        )
    if launching.processes(config.trainer) > 1:
        raise InputError(
            f"find and trainer.devices={config.trainer.devices}: one device finds it; say trainer.devices=1"
        )
    folder = Path(config.run_dir)
    if (folder / "config.yaml").exists():
        raise InputError(f"find: {folder} holds a run already; name another folder (hydra.run.dir=FOLDER)")
    [(quantity, arguments)] = OmegaConf.to_container(config.find).items()
    _require_searchable(quantity, arguments)
    quieten()
    lightning.seed_everything(config.seed, verbose=False)
    run = Run(folder, settled(config, folder))
    model = build_model(run, config.trust)
    data = build_data(run.config, model, config.trust)
    options = run.config.trainer
    arithmetic = hardware.choose(options.precision, options.memory_format, options.accelerator)
    data.trainer = trainer = build_trainer(run, model, arithmetic)
    data.prepare_data()
    data.setup()
    try:
        with raising():  # Lightning would make status 1 of Ctrl-C, and say nothing
            return SUGGESTIONS[quantity](trainer, model, data, arguments, run)
    except Interrupted:
        log.warning("interrupted; nothing is suggested")
        raise


def _require_searchable(quantity: str, arguments: Mapping) -> None:
    """Passes only arguments that the tuner can search for the quantity with."""
    if quantity == "batch_size":
        if (mode := arguments["mode"]) not in ("power", "binsearch"):
            raise InputError(f"find.batch_size.mode={mode}: power or binsearch is needed")
        return
    lowest = arguments["min_lr"]
    if type(lowest) not in (int, float) or not 0 < lowest < 1:
        raise InputError(f"find.learning_rate.min_lr={lowest}: a rate above 0 and below 1, the last one, is needed")
    require_whole("find.learning_rate.num_training", arguments["num_training"], SETTLING + 1)


def _learning_rate(
    trainer: lightning.Trainer, model: Classifier, data: RadiographDataModule, arguments: Mapping, run: Run
) -> float:
    """A tenth of where the loss is lowest."""
    require_one_rate(model)
    # Its steps end it, not the epochs that are configured, which few images fill in fewer steps.
    trainer.fit_loop.max_epochs = arguments["num_training"]
    if not sys.stderr.isatty():  # its bar would fill a log
        model.on_train_start = lambda: setattr(trainer.callbacks[0], "progress_bar_refresh_rate", 0)
    results = Tuner(trainer).lr_find(model, datamodule=data, update_attr=False, **arguments).results
    curve = pd.DataFrame({"learning_rate": results["lr"], "loss": unbiased(np.array(results["loss"]))})
    rate = tenth_of_lowest(curve)
    rate = None if rate is None else float(f"{rate:.2g}")
    _keep(run, curve, rate)
    if rate is None:
        raise InputError(
            f"find=lr: in {len(curve)} steps no learning rate brought the loss down; give it more, "
            f"find.learning_rate.num_training={2 * arguments['num_training']}"
        )
    log.info("suggested, a tenth of where the loss is lowest: %s", override("model.learning_rate", rate))
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
    trainer: lightning.Trainer, model: Classifier, data: RadiographDataModule, arguments: Mapping, run: Run
) -> int:
    """The largest whose step fits in the GPU's memory, and that the training part fills."""
    require_gpu(trainer.strategy.root_device)
    rows = _watched(model)
    size = Tuner(trainer).scale_batch_size(model, datamodule=data, max_val=len(data.rows("train")), **arguments)
    _keep(run, pd.DataFrame(rows), size)
    log.info("suggested, the largest that fits in memory: %s", override("data.batch_size", size))
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


def _watched(model: Classifier) -> list[dict[str, float]]:
    """A row for each batch size that is tried from now on, and the memory that it took; NaN where it took too much.

    The tuner leaves no callback in its place, but the model's own hooks.
    """
    rows: list[dict[str, float]] = []

    def start(batch: dict[str, torch.Tensor], index: int) -> None:
        if index == 0:
            rows.append({"batch_size": len(batch["length"]), "memory_bytes": float("nan")})
            log.info("trying batches of %d", rows[-1]["batch_size"])
            if model.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(model.device)

    def end(outputs: torch.Tensor, batch: dict[str, torch.Tensor], index: int) -> None:
        rows[-1]["memory_bytes"] = hardware.memory_in_use(model.device)

    model.on_train_batch_start, model.on_train_batch_end = start, end
    return rows


def _keep(run: Run, curve: pd.DataFrame, value: float | None) -> None:
    """The curve in the folder, as a table and drawn, and at Weights & Biases."""
    tried, measured = curve.columns
    picture = run.folder / f"{tried}.png"
    curve.to_csv(picture.with_suffix(".csv"), index=False)
    _draw(curve.sort_values(tried), value, columns.model_name(run.config.model), picture)
    log.info("%s, by %s: %s", AXES[measured], AXES[tried], picture)
    log_search(run, curve, value)


def _draw(curve: pd.DataFrame, value: float | None, title: str, path: Path) -> None:
    tried, measured = curve.columns
    with plt.rc_context(STYLE | {"grid.color": GRID}):
        figure, plot = plt.subplots(figsize=(6, 4), layout="constrained")
        if tried == "learning_rate":
            plot.plot(
                *curve[: SETTLING + 1].to_numpy().T, color=COLOURS[7], linewidth=2, label="too few losses to go by"
            )
            plot.plot(*curve[SETTLING:].to_numpy().T, color=COLOURS[0], linewidth=2)
        else:
            plot.plot(*curve.to_numpy().T, color=COLOURS[0], marker="o", linewidth=2)
            plot.yaxis.set_major_formatter(EngFormatter("B"))
        if value is not None:
            plot.axvline(value, color=COLOURS[1], linestyle=":", linewidth=2, label=f"suggested: {value:g}")
        figure.legend(loc="outside lower left", ncols=2)
        plot.set_xscale("log", base=10 if tried == "learning_rate" else 2)
        plot.set(xlabel=AXES[tried], ylabel=AXES[measured], title=title)
        plot.xaxis.set_major_formatter("{x:g}")
        figure.savefig(path, dpi=120)
        plt.close(figure)
