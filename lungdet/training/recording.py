"""What is written and shown while a model trains: metrics.csv, a line an epoch, a progress bar."""

import logging
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from torch.optim import Optimizer

from lungdet.machine import hardware, ranks
from lungdet.machine.writing import write_text

log = logging.getLogger(__name__)


class Record(Callback):
    """Writes a row an epoch into metrics.csv, with pace, seconds and memory, and logs the epoch as one plain line.

    `images_per_second` is of training alone, `seconds` of the whole epoch, `memory_bytes` as in
    `hardware.memory_in_use`. What validation gave is empty after an epoch that was not validated
    (`trainer.check_val_every_n_epoch`). A resumed run's table continues; rows of epochs that are trained again are
    replaced.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.csv"

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Count the memory of this run, not of one before it in the same process."""
        if module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(module.device)

    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let a run folder be moved: Lightning forgets the best epoch where its checkpoints lie elsewhere.

        No path is taken from the checkpoint, which may be anybody's: Lightning deletes what was the best before.
        """
        folder = (self.path.parent / "checkpoints").resolve()
        for state in checkpoint["callbacks"].values():
            if "dirpath" in state:
                path = str(folder / ("best.ckpt" if state["monitor"] else "last.ckpt"))
                for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
                    state[key] = path if state[key] else ""
                state["best_k_models"] = dict.fromkeys([path] * bool(state["best_k_models"]), state["best_model_score"])
                state["dirpath"] = str(folder)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock; note the learning rate, the highest of any layer, which each step may change."""
        self._images, self._started = 0, time.perf_counter()
        self._learning_rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        self._validation = {}

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: dict, index: int
    ) -> None:
        """Count images."""
        self._images += len(batch["image"]) * trainer.world_size
        if trainer.is_last_batch and module.device.type == "cuda":
            torch.cuda.synchronize(module.device)  # the host runs ahead
        self._stopped = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Note what validation gave: Lightning's own record of it outlasts the epoch."""
        metrics = trainer.callback_metrics.items()
        self._validation = {name: float(value) for name, value in metrics if name.startswith("val/")}

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Write the row and the line; log pace and learning rate, to dashboards too."""
        loss = float(module.train_loss.compute())  # of all processes
        if not trainer.is_global_zero:
            return
        pace = {
            "learning_rate": self._learning_rate,
            "images_per_second": self._images / (self._stopped - self._started),
        }
        module.log_dict(pace, rank_zero_only=True)
        spent = {"seconds": time.perf_counter() - self._started, "memory_bytes": hardware.memory_in_use(module.device)}
        measured = {"train/loss": loss, "val/loss": float("nan"), **self._validation, **pace, **spent}
        self._write({"epoch": trainer.current_epoch, **measured})
        validation = (
            "val loss {val/loss:.4f}  accuracy {val/accuracy:.3f}  f1 {val/f1:.3f}  auroc {val/auroc:.3f}"
            if self._validation
            else "not validated"
        ).format_map(self._validation)
        end = f"/{trainer.max_epochs}" if trainer.max_epochs > 0 else ""  # -1: there is none
        log.info(
            "epoch %d%s  loss %.4f  %s  lr %.0e  %.0f images/s",
            trainer.current_epoch + 1, end, loss, validation, *pace.values(),
        )  # fmt: skip

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Say why training ends before its last epoch."""
        if trainer.should_stop and trainer.current_epoch != trainer.max_epochs:
            log.info(
                "training ends after epoch %d of %d: %s", trainer.current_epoch, trainer.max_epochs, _reason(trainer)
            )

    def _write(self, row: dict[str, float]) -> None:
        table = pd.DataFrame([row])
        if self.path.is_file():
            before = pd.read_csv(self.path)
            table = pd.concat([before[before["epoch"] < row["epoch"]], table], ignore_index=True)
        write_text(self.path, table.to_csv(index=False))


class Steps(Callback):
    """Logs of every so many-th step the batch's loss, the learning rate, and the gradient's norm before it is clipped.

    Args:
        every: so many; what is logged has to be fetched from a GPU, which waits for it.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._measured: dict[str, Any] = {}

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: Optimizer) -> None:
        """Measure, where the step is one of them; gradients are unscaled by now."""
        if trainer.global_step % self.every == 0:
            gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
            rate = max(group["lr"] for group in optimizer.param_groups)
            self._measured = {
                "step/gradient_norm": torch.nn.utils.get_total_norm(gradients),
                "step/learning_rate": rate,
            }

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: dict, index: int
    ) -> None:
        """Log; of the loss Lightning has but the share that accumulated gradients take of it."""
        if self._measured:
            loss = outputs["loss"] * trainer.accumulate_grad_batches
            measured = {"step/loss": loss, **self._measured}
            values = {name: float(value) for name, value in measured.items()}
            trainer.logger.log_metrics(values, step=trainer.global_step - 1)
            self._measured = {}


def progress() -> list[Callback]:
    """A progress bar in a terminal; in a log the epoch's line is enough."""
    return [Progress(leave=False)] if sys.stdout.isatty() and ranks.rank() == 0 else []


class Progress(RichProgressBar):
    """Lightning's bar, with epochs counted from 1 as everywhere else that people read, the loss and the time left."""

    EVERY = 10
    """Batches between two looks at the loss, each of which waits for a GPU."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start the clock of the whole run."""
        super().on_train_start(trainer, module)
        self._began, self._first, self._shown = time.perf_counter(), trainer.current_epoch, {}

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: dict, index: int
    ) -> None:
        """Now and then, the batch's loss and how long all epochs to come will take at the pace so far."""
        if index % self.EVERY == 0 or trainer.is_last_batch:
            loss = float(outputs["loss"]) * trainer.accumulate_grad_batches  # see `Steps`
            self._shown = {"loss": f"{loss:.3f}"}
            trained = trainer.current_epoch - self._first + (index + 1) / trainer.num_training_batches
            if trainer.max_epochs > 0:
                pace = (time.perf_counter() - self._began) / trained
                seconds = pace * (trainer.max_epochs - self._first - trained)
                self._shown["left"] = str(timedelta(seconds=round(seconds)))
        super().on_train_batch_end(trainer, module, outputs, batch, index)

    def configure_columns(self, trainer: Trainer) -> list:
        """Lightning's within 80 columns, which fold otherwise: a shorter bar, and no batches a second."""
        columns = super().configure_columns(trainer)[:-1]
        columns[1].bar_width = 12
        return columns

    def get_metrics(self, trainer: Trainer, module: LightningModule) -> dict[str, str]:
        """What stands behind the bar: of the run, not of Lightning's own version of it."""
        return self._shown

    def _get_train_description(self, current_epoch: int) -> str:
        last = self.trainer.max_epochs
        text = f"Epoch {current_epoch + 1}{f'/{last}' if last and last > 0 else ''}"
        return text.ljust(len(self.validation_description))  # uneven lengths flicker


def _reason(trainer: Trainer) -> str:
    """What made training end early; Lightning keeps it to itself."""
    stopping, loss = trainer.early_stopping_callback, trainer.callback_metrics.get("val/loss")
    if stopping is not None and stopping.wait_count >= stopping.patience:
        return f"no lower validation loss (trainer.early_stopping={stopping.patience})"
    if stopping is not None and loss is not None and not loss.isfinite():
        return "the validation loss is not a number"
    return "the time is up (trainer.max_time)"
