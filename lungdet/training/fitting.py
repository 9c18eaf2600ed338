"""One run: its model and data are built, described, fitted, and what they came to is predicted and recorded.

On several devices each of them trains it in a process of its own, see `lungdet.machine.launching`.
"""

import logging
import math
import platform
from collections.abc import Sequence
from contextlib import nullcontext

import lightning
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from lungdet.data.datamodule import RadiographDataModule
from lungdet.data.reference import Reference
from lungdet.data.serving.degrade import degradations
from lungdet.errors import InputError
from lungdet.instantiation import instantiate
from lungdet.machine import hardware, launching, ranks
from lungdet.machine.commands import command, override
from lungdet.machine.hardware import Arithmetic
from lungdet.machine.loglines import quieten
from lungdet.models.backbone import require_size, untrained
from lungdet.models.classifier import Classifier
from lungdet.runs import multirun
from lungdet.runs.folder import Run
from lungdet.runs.identity import fingerprint, require_data
from lungdet.runs.learnt import origins
from lungdet.training import pretraining, published, shortcuts
from lungdet.training.dashboards import conclude, dashboard
from lungdet.training.predicting import predict, predict_degraded
from lungdet.training.recording import Steps
from lungdet.training.trainer import build_trainer
from lungdet.training.wandb import settings_of

log = logging.getLogger(__name__)


def train(run: Run, trust: Sequence[str] = ()) -> float:
    """Fit the run's model, or go on fitting it, predict with its best weights and record what it cost.

    Args:
        run: as `starting.start` yields it.
        trust: packages whose classes the configuration may name.

    Returns:
        The best validation loss.
    """
    processes = launching.processes(run.config.trainer)
    if processes > 1 and ranks.count() == 1:
        return launching.launch(train, run, trust, processes=processes)
    settings_of(run.config.logger)
    quieten()
    lightning.seed_everything(run.config.seed, verbose=False)
    model = build_model(run, trust)
    data = build_data(run.config, model, trust)
    poorer = degradations(run.config.get("degrade") or {})
    options = run.config.trainer
    arithmetic = hardware.choose(options.precision, options.memory_format, options.accelerator)
    trainer = build_trainer(run, model, arithmetic)
    prepare(run, trainer, data)
    compiled = compiles(run, model, data)
    describe(run, trainer, model, data, arithmetic)
    with dashboard(run, data) as logger:
        follow(run, trainer, logger)
        shortcuts.record(run, data)
        # Series differ in length from batch to batch, and what is kept would fit less and less.
        with hardware.memory_kept() if model.visits == 1 else nullcontext():
            fit(run, trainer, model, data, compiled)
            test = predict(run, trainer, model, data)
            predict_degraded(run, trainer, model, data, poorer)
        keep_reference(run, data)
        record(run, test)
        if logger is not None:
            conclude(logger, run, data)
    return run.best_loss


def build_model(run: Run, trust: Sequence[str] = ()) -> Classifier:
    """The configured model, its backbone as the run of `model.backbone.init_from` ended.

    Of a run that goes on or is done the weights are its own, fetched from nowhere else.
    """
    config, start = run.config.model, OmegaConf.select(run.config.model, "backbone.init_from")
    config = untrained(config) if run.can_continue or start else config
    learning = {
        group: instantiate(f"{run.folder}: {group}", run.config[group], trust) for group in ("optimizer", "schedule")
    }
    model = instantiate(f"{run.folder}: model", config, trust, **learning)
    if model.backbone is not None:
        if start and not run.can_continue:
            pretraining.load(model.backbone, start)
        require_size(model.backbone, run.config.data.image_size)
    return model


def build_data(config: DictConfig, model: Classifier, trust: Sequence[str] = ()) -> RadiographDataModule:
    """The configured radiographs, augmented as configured, in series where the model reads them."""
    return instantiate("data", config.data, trust, augmentation=config.augment, seed=config.seed, visits=model.visits)


def prepare(run: Run, trainer: lightning.Trainer, data: RadiographDataModule) -> None:
    """Prepare the images and split them.

    Raises:
        RunError: the run is of other data, or its weights start from a run that has learnt from who is tested here, or
            from published weights that have.
    """
    data.trainer = trainer
    with ranks.one_first():
        data.prepare_data()
        data.setup()
    require_data(run, data.identity, data.split.hash)
    if run.can_continue:
        return
    weights = published.origin(run.config.model)
    run.record(origin=weights)
    known = [weights] if weights else []
    if weights and weights["seen"] is None:
        log.warning(
            "what %s has learnt from is not known, and may be images that are tested here; say it: "
            "model.backbone.origin=NAME (lungdet/models/origins.py), or 'model.backbone.seen=[DATASET]'",
            weights["weights"],
        )
    if folder := OmegaConf.select(run.config.model, "backbone.init_from"):
        start = pretraining.start(folder)
        run.record(unsearched=pretraining.require_unseen(start, data))
        run.keep_start(start)
        known += origins(start)
    published.require_outside(known, data.manifest.iloc[data.rows("test")], "this run's test part")


def compiles(run: Run, model: Classifier, data: RadiographDataModule) -> bool:
    """Whether the convolutional layers, if there are any, are compiled: where that is asked for, or pays.

    Raises:
        InputError: it is asked for, and there is no compiler.
    """
    options = run.config.trainer
    images = len(data.rows("train")) * options.max_epochs
    return model.backbone is not None and hardware.compiles(options.compile, images, options.accelerator)


def describe(
    run: Run, trainer: lightning.Trainer, model: Classifier, data: RadiographDataModule, arithmetic: Arithmetic
) -> None:
    """Record what is trained on what and where, before it starts.

    Raises:
        InputError: several processes were started differently, or see different files.
    """
    facts = {"data": data.describe(), "split": data.split.describe(data.manifest)}
    identity = {"computes": fingerprint(run.config), "store": data.store.fingerprint, "split": data.split.hash}
    place = {"host": platform.node(), "device": str(trainer.strategy.root_device)}
    processes = ranks.gathered(place | identity)
    if any(process[key] != identity[key] for process in processes for key in identity):
        raise InputError(f"the processes of this run do not train the same on the same data: {processes}")
    run.begin(
        **facts,
        precision=arithmetic.precision,
        memory_format=arithmetic.memory_format,
        processes=[{key: process[key] for key in place} for process in processes],
        hardware=hardware.describe(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )
    if ranks.rank() == 0:
        data.split.save(run.folder / "split.csv", data.manifest)
    if (count := len(processes)) > 1:
        cases = data.serving.batch_size
        log.info("%d processes of %d cases a batch: %d a step", count, cases, count * cases)


def follow(run: Run, trainer: lightning.Trainer, logger: Logger | None) -> None:
    """Have the fit logged: its epochs, and of its steps every `logger.log_every_n_steps`-th."""
    if logger is not None:
        trainer.logger = logger
        trainer.callbacks.append(Steps(run.config.logger.log_every_n_steps))


def fit(run: Run, trainer: lightning.Trainer, model: Classifier, data: RadiographDataModule, compiled: bool) -> None:
    """Train, from the last whole epoch if there is one, unless that is done."""
    if not run.fitted:
        run.record(compiled=compiled)
        if compiled:
            log.info("compiling the convolutional layers, a minute or so; trainer.compile=false does without")
            model.backbone.compile()  # torch.compile(model) would rename its weights
        trainer.fit(model, data, ckpt_path=run.checkpoint("last") if run.can_continue else None)
        run.record(fitted=True)
    trainer.logger = None  # what is predicted from here on is no point of a curve


def keep_reference(run: Run, data: RadiographDataModule) -> None:
    """Keep what the run's images look like, by which `lungdet predict` knows those that are unlike them."""
    if ranks.rank() == 0:
        Reference.of(data.store.images, data.rows("train"), data.rows("val")).write(run.folder)


def record(run: Run, test: dict[str, float]) -> None:
    """Record what the run cost and mark it as finished."""
    epochs = run.epochs.set_index("epoch")
    best = int(epochs["val/loss"].idxmin())
    run.finish(
        test=test,
        epochs=len(epochs),
        best_epoch=best,
        fit_seconds=float(epochs["seconds"].sum()),
        images_per_second=float(epochs["images_per_second"].median()),
        peak_memory_bytes=int(epochs["memory_bytes"].max()),
    )
    metrics = "  ".join(
        f"{name} {'undefined' if math.isnan(value) else format(value, '.3f')}" for name, value in test.items()
    )
    log.info("best epoch %d, on the test part: %s", best + 1, metrics)
    log.info("evaluate with: %s", command("evaluate.py", override("runs", multirun.around(run.folder))))
