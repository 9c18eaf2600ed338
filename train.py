"""One run: compose the configuration, build data and model, fit, predict, record.

    python train.py model=cnn_lstm
    python train.py -m model=cnn,cnn_lstm seed=0,1,2

Heavy imports stand inside the functions, so that --help and --cfg answer at once.
"""

import logging
import platform
from contextlib import nullcontext
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, OmegaConf

from lungdet.errors import InputError, plain_errors, run_program
from lungdet.instantiation import instantiate
from lungdet.machine import launching, ranks, requeue
from lungdet.machine.commands import command, override
from lungdet.runs import identity, multirun, starting
from lungdet.training import interruption

log = logging.getLogger("train")

# Keys of Lightning under which epochs, or the parts of the split, would not be whole, and what there is in their place.
INSTEAD = {
    "max_steps": "trainer.max_epochs",
    "val_check_interval": "trainer.check_val_every_n_epoch",
    **dict.fromkeys((f"limit_{stage}_batches" for stage in ("val", "test", "predict")), "data.limit"),
    "overfit_batches": "data.limit",
    "fast_dev_run": "experiment=smoke",
}

if TYPE_CHECKING:
    from collections.abc import Sequence

    import lightning
    import pandas as pd

    from lungdet.data.datamodule import RadiographDataModule
    from lungdet.data.serving.degrade import Degradation
    from lungdet.machine.hardware import Arithmetic
    from lungdet.models.classifier import Classifier
    from lungdet.runs.folder import Run


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> float:
    """Train one model; returns the best validation loss, for sweepers to minimise."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_config = HydraConfig.get()
    ranks.quieten()
    requeue.on_signal()
    alone, said = hydra_config.mode is RunMode.RUN, hydra_config.overrides.task
    with plain_errors("train.py", alone):
        if alone and any(word.lstrip("+").startswith("sweep.name=") for word in said):
            raise InputError("sweep.name names the folder of several jobs: add -m; one run's is hydra.run.dir=FOLDER")
        with starting.start(config, said) as run, interruption.advice(run):
            return run.best_loss if run.finished and run.changed is None else train(run, config.trust)


def train(run: "Run", trust: "Sequence[str]" = ()) -> float:
    """Fit the run's model, or go on fitting it, predict with its best weights and record what it cost.

    On several devices, this in a process each. `trust`: packages whose classes the configuration may name.
    """
    processes = launching.wanted(run.config.trainer)
    if processes > 1 and ranks.count() == 1:
        return launching.launch(train, run, trust, processes=processes)

    import lightning

    from lungdet.machine import hardware
    from lungdet.training import pretraining, recording, shortcuts

    recording.quieten()
    lightning.seed_everything(run.config.seed, verbose=False)
    model = build_model(run, trust)
    data = build_data(run.config, model, trust)
    degradations = build_degradations(run.config)
    wanted = run.config.trainer
    arithmetic = hardware.choose(wanted.precision, wanted.memory_format, wanted.accelerator)
    data.trainer = trainer = build_trainer(run, model, arithmetic)
    with ranks.one_first():
        data.prepare_data()
        data.setup()
    identity.require_data(run, data.identity, data.split)
    if not run.can_continue and (folder := run.config.model.backbone.init_from):
        start = pretraining.start(folder)
        run.record(unsearched=pretraining.require_unseen(start, data))
        run.keep_start(start)
    compile_backbone(run, model, data)
    with recording.wandb_logger(run) as trainer.logger:
        describe(run, data, model, trainer, arithmetic)
        if ranks.rank() == 0:
            shortcuts.record(run, data)
        # Series differ in length from batch to batch, and what is kept would fit less and less.
        with hardware.memory_kept() if model.visits == 1 else nullcontext():
            if not run.fitted:
                trainer.fit(model, data, ckpt_path=run.checkpoint("last") if run.can_continue else None)
                run.record(fitted=True, compiled=model.compiled)
            test = predict(run, trainer, model, data)
            predict_degraded(run, trainer, model, data, degradations)
        return record(run, test)


def build_model(run: "Run", trust: "Sequence[str]" = ()) -> "Classifier":
    """The configured model; of a run that goes on or is done the weights are its own, fetched from nowhere else."""
    from lungdet.models.backbone import require_size
    from lungdet.training.pretraining import untrained

    config = untrained(run.config.model) if run.can_continue else run.config.model
    model = instantiate(f"{run.folder}: model", config, trust)
    if model.backbone is not None:
        require_size(model.backbone, run.config.data.image_size)
    return model


def build_data(config: DictConfig, model: "Classifier", trust: "Sequence[str]" = ()) -> "RadiographDataModule":
    """The configured radiographs, augmented as configured, in series where the model reads them."""
    own = {"augmentation": config.augment, "seed": config.seed, "visits": model.visits}
    return instantiate("data", config.data, trust, **own)


def build_degradations(config: DictConfig) -> "list[Degradation]":
    """The poorer qualities that the test images are predicted in, too; usually none."""
    from omegaconf import OmegaConf

    from lungdet.data.serving import degrade

    levels = config.get("degrade")
    return degrade.degradations(OmegaConf.to_container(levels) if levels else None)


def build_trainer(run: "Run", model: "Classifier", arithmetic: "Arithmetic") -> "lightning.Trainer":
    """Lightning's trainer with this run's callbacks and arithmetic; puts the model into its memory format."""
    import lightning
    import torch
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.strategies import DDPStrategy
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from lungdet.training import recording
    from lungdet.training.checkpoints import Checkpoints

    options = OmegaConf.to_container(run.config.trainer)
    for key in ("compile", "precision", "memory_format"):
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
        # a static graph cannot begin with a batch whose gradients are only added up.
        static = options.get("accumulate_grad_batches", 1) == 1
        strategy = DDPStrategy(static_graph=static, find_unused_parameters=not static, gradient_as_bucket_view=True)
        options.setdefault("strategy", strategy)
        if str(options["devices"]) in ("auto", "-1"):
            options["devices"] = ranks.count_here()
    if options.get("sync_batchnorm", "auto") == "auto":  # torch has none for a CPU
        options["sync_batchnorm"] = several and torch.cuda.is_available() and options["accelerator"] != "cpu"
    model.to(memory_format=getattr(torch, arithmetic.memory_format))
    checkpoints = {"dirpath": run.folder / "checkpoints", "enable_version_counter": False}
    callbacks = [
        recording.Signals(),
        recording.Record(run.folder),
        *recording.progress(),
        ModelCheckpoint(filename="best", monitor="val/loss", **checkpoints),
        ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **checkpoints),
        recording.Patience(options.pop("early_stopping")),
    ]
    try:
        return lightning.Trainer(
            **options,
            plugins=[Checkpoints()],
            default_root_dir=run.folder,  # Lightning would load any hpc_ckpt_* that lies where it was started
            precision=arithmetic.precision,
            callbacks=callbacks,
            logger=False,
            enable_progress_bar=bool(recording.progress()),
            enable_model_summary=False,
            num_sanity_val_steps=0,  # a bad validation set shows after the first epoch, whole
            use_distributed_sampler=False,  # the order of images is ours, see lungdet.data.serving.loading
            log_every_n_steps=1,
        )
    except (MisconfigurationException, ImportError, TypeError, ValueError) as error:
        raise InputError(f"Lightning refuses what trainer.* says: {error}") from error


def compile_backbone(run: "Run", model: "Classifier", data: "RadiographDataModule") -> None:
    """Compile the convolutional layers where that is asked for, or pays; weights keep their names."""
    from lungdet.machine import hardware

    images = len(data.rows("train")) * run.config.trainer.max_epochs
    choice = run.config.trainer.get("compile", False)
    model.to_compile = model.backbone is not None and hardware.compiles(choice, images, run.config.trainer.accelerator)


def describe(
    run: "Run",
    data: "RadiographDataModule",
    model: "Classifier",
    trainer: "lightning.Trainer",
    arithmetic: "Arithmetic",
) -> None:
    """Record what is trained on what and where, before it starts.

    Raises:
        InputError: several processes were started differently, or see different files.
    """
    from lungdet.machine import hardware

    facts = {"data": data.describe(), "split": data.split.describe(data.manifest)}
    same = {"computes": identity.fingerprint(run.config), "store": data.store.fingerprint, "split": data.split.hash}
    each = ranks.gathered({"host": platform.node(), "device": str(trainer.strategy.root_device), **same})
    if any(one[what] != same[what] for one in each for what in same):
        raise InputError(f"the processes of this run do not train the same on the same data: {each}")
    run.begin(
        **facts,
        precision=arithmetic.precision,
        memory_format=arithmetic.memory_format,
        processes=[{"host": one["host"], "device": one["device"]} for one in each],
        hardware=hardware.describe(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )
    if ranks.rank() == 0:
        data.split.save(run.folder / "split.csv", data.manifest)
    if len(each) > 1:
        cases = data.serving.batch_size
        log.info("%d processes of %d cases a batch: %d a step", len(each), cases, len(each) * cases)
    if trainer.logger is not None:
        trainer.logger.experiment.config.update({"found": facts}, allow_val_change=True)


def predict(
    run: "Run", trainer: "lightning.Trainer", model: "Classifier", data: "RadiographDataModule"
) -> dict[str, float]:
    """Predict with the best epoch's weights and write it down: a sample of training, validation, test.

    Returns:
        The test part's loss and metrics.
    """
    best = run.checkpoint("best")
    if not run.epochs["val/loss"].notna().any():
        raise InputError(
            f"{run.folder}: the validation loss was never a number, so training diverged; lower model.learning_rate, "
            "or set trainer.gradient_clip_val=1.0"
        )
    seen = data.loader(data.train_sample(), training=False)
    trainer.predict(model, seen, ckpt_path=best, return_predictions=False)
    run.write_predictions("train", predicted(model, data, "train"))
    trainer.validate(model, datamodule=data, ckpt_path=best, verbose=False)
    run.write_predictions("val", predicted(model, data, "val"))
    (test,) = trainer.test(model, datamodule=data, ckpt_path=best, verbose=False)
    run.write_predictions("test", predicted(model, data, "test"))
    return {name.removeprefix("test/"): value for name, value in sorted(test.items())}


def predict_degraded(
    run: "Run",
    trainer: "lightning.Trainer",
    model: "Classifier",
    data: "RadiographDataModule",
    degradations: "list[Degradation]",
) -> None:
    """Predict the test images in each poorer quality and write down a row an image, kind and level, if there is any."""
    import pandas as pd

    tables, best = [], run.checkpoint("best")
    for degradation in degradations:
        images = data.loader(data.rows("test"), training=False, degradation=degradation)
        trainer.predict(model, images, ckpt_path=best, return_predictions=False)
        table = predicted(model, data, "test")
        told = table.filter(regex="^(logit|probability)_")
        tables.append(table[["image_id"]].assign(degradation=degradation.kind, level=degradation.level).join(told))
    if tables:
        run.write_predictions("degraded_test", pd.concat(tables, ignore_index=True))


def predicted(model: "Classifier", data: "RadiographDataModule", part: str) -> "pd.DataFrame":
    """What the model has just predicted, with the hashes of the split and of the part that the images are of."""
    from lungdet.runs.predictions import prediction_table

    found = model.predictions
    table = prediction_table(data.manifest.iloc[found["row"].numpy()], model.labels, found["logit"].numpy())
    table.attrs = {"split": data.split.hash, "part": data.split.part_hash(part)}
    return table


def record(run: "Run", test: dict[str, float]) -> float:
    """Record what the run cost, mark it as finished and return its best validation loss."""
    from lungdet.runs.folder import finish

    epochs = run.epochs.set_index("epoch")
    finish(
        run,
        test=test,
        epochs=len(epochs),
        best_epoch=int(epochs["val/loss"].idxmin()),
        fit_seconds=float(epochs["seconds"].sum()),
        images_per_second=float(epochs["images_per_second"].median()),
        peak_memory_bytes=int(epochs["memory_bytes"].max()),
    )
    said = "  ".join(f"{name} {value:.3f}" for name, value in test.items())
    log.info("best epoch %d, on the test part: %s", epochs["val/loss"].idxmin() + 1, said)
    log.info("evaluate with: %s", command("evaluate.py", override("runs", run.folder)))
    return run.best_loss


def sweep_folder(name: str) -> str:
    """`multirun.sweep_folder`, and the end of the program where the name cannot be one."""
    with plain_errors("train.py"):
        return multirun.sweep_folder(name)


# Folder names in conf/train.yaml. What a run computes names it, so that a multirun that is started again finds it.
OmegaConf.register_new_resolver("agreed", ranks.agreed, use_cache=True, replace=True)
OmegaConf.register_new_resolver("sweep_folder", sweep_folder, use_cache=True, replace=True)
OmegaConf.register_new_resolver("computes", lambda *, _root_: identity.fingerprint(_root_)[:8], replace=True)

if __name__ == "__main__":
    run_program("train.py", main)
