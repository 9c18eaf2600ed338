"""Lightning's trainer for a run: its options, its callbacks, and keys of Lightning's that are refused."""

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from lungdet.errors import InputError
from lungdet.machine import ranks
from lungdet.machine.hardware import Arithmetic
from lungdet.models.classifier import Classifier
from lungdet.runs.folder import Run
from lungdet.training.averaging import Averaging
from lungdet.training.callbacks import LastStep, Patience, Seeding, Signals, Unfreezing
from lungdet.training.checkpoints import Checkpoints
from lungdet.training.estimating import Estimating
from lungdet.training.recording import Record, progress

# Keys of Lightning under which epochs, or the parts of the split, would not be whole, and what there is in their place.
INSTEAD = {
    "max_steps": "trainer.max_epochs",
    "val_check_interval": "trainer.check_val_every_n_epoch",
    **dict.fromkeys((f"limit_{stage}_batches" for stage in ("val", "test", "predict")), "data.limit"),
    "overfit_batches": "data.limit",
    "fast_dev_run": "experiment=smoke",
}


def build_trainer(run: Run, model: Classifier, arithmetic: Arithmetic) -> lightning.Trainer:
    """Lightning's trainer with this run's callbacks and arithmetic; puts the model into its memory format.

    Raises:
        InputError: a key or a value of `trainer.*` cannot be used.
    """
    unfreezes = getattr(model.backbone, "unfreeze_at", None) is not None
    options = _options(run.config.trainer, unfreezes)
    if unfreezes and 0 <= options["max_epochs"] <= model.backbone.unfreeze_at:
        raise InputError(
            f"model.backbone.unfreeze_at={model.backbone.unfreeze_at}: training ends before, after "
            f"trainer.max_epochs={options['max_epochs']}; give fewer, or model.backbone.frozen=true"
        )
    model.to(memory_format=getattr(torch, arithmetic.memory_format))
    checkpoints = {"dirpath": run.folder / "checkpoints", "enable_version_counter": False}
    bars = progress()
    decay = run.config.trainer.averaging
    callbacks = [
        Signals(),
        Seeding(),
        *([Unfreezing()] if unfreezes else []),
        LastStep(),
        *([] if decay is None else [Averaging(decay), Estimating()]),
        Record(run.folder),
        *bars,
        ModelCheckpoint(filename="best", monitor="val/loss", **checkpoints),
        ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **checkpoints),
        Patience(run.config.trainer.early_stopping),
    ]
    try:
        return lightning.Trainer(
            **options,
            plugins=[Checkpoints()],
            default_root_dir=run.folder,  # Lightning would load any hpc_ckpt_* that lies where it was started
            precision=arithmetic.precision,
            callbacks=callbacks,
            logger=False,
            enable_progress_bar=bool(bars),
            enable_model_summary=False,
            num_sanity_val_steps=0,  # a bad validation set shows after the first epoch, whole
            use_distributed_sampler=False,  # the order of images is ours, see lungdet.data.serving.loading
            log_every_n_steps=1,
        )
    except (MisconfigurationException, ImportError, TypeError, ValueError) as error:
        raise InputError(f"Lightning refuses what trainer.* says: {error}") from error


def _options(config: DictConfig, unfreezes: bool) -> dict:
    """`trainer.*` as Lightning takes it, for as many processes as there are and a model that may learn more later."""
    options = OmegaConf.to_container(config)
    for key in ("compile", "precision", "memory_format", "early_stopping", "averaging"):  # not Lightning's
        options.pop(key, None)
    for key in INSTEAD.keys() & options.keys():
        raise InputError(
            f"trainer.{key}={options[key]}: epochs are trained, validated and tested whole; use {INSTEAD[key]} instead"
        )
    interval = options.get("check_val_every_n_epoch", 1)
    if not isinstance(interval, int) or interval < 1 or 0 < options["max_epochs"] < interval:
        raise InputError(f"trainer.check_val_every_n_epoch={interval}: at least one epoch must be validated")
    several = ranks.count() > 1
    if several:
        # Static: timm's models have parameters that no feature map needs, and DDP would look for them at each step. But
        # a static graph cannot begin with a batch whose gradients are only added up, nor with fewer of them.
        static = options["accumulate_grad_batches"] == 1 and not unfreezes
        strategy = DDPStrategy(static_graph=static, find_unused_parameters=not static, gradient_as_bucket_view=True)
        options.setdefault("strategy", strategy)
        if str(options["devices"]) in ("auto", "-1"):
            options["devices"] = ranks.count_here()
    if options.get("sync_batchnorm", "auto") == "auto":  # torch has none for a CPU
        options["sync_batchnorm"] = several and torch.cuda.is_available() and options["accelerator"] != "cpu"
    return options
