"""What is written and shown while a model trains: metrics.csv, a line an epoch, Weights & Biases."""

import logging
import math
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, RichProgressBar
from lightning.pytorch.loggers import WandbLogger
from omegaconf import OmegaConf

from lungdet.errors import InputError
from lungdet.machine import hardware, ranks
from lungdet.machine.writing import write_text
from lungdet.runs.folder import Run

log = logging.getLogger(__name__)

PATIENCE = 8  # seconds that Weights & Biases may take to start online, and again to finish
ANSWER = 3  # seconds that their server may take to answer a first request
OFFLINE = 600  # seconds to start and to finish offline, where nobody is waited for: only a busy machine makes it slow


class Record(Callback):
    """Writes a row an epoch into metrics.csv, with pace, seconds and memory, and logs the epoch as one plain line.

    `images_per_second` is of training alone, `seconds` of the whole epoch, `memory_bytes` as in
    `hardware.memory_in_use`. What validation gave is empty after an epoch that was not validated
    (`trainer.check_val_every_n_epoch`). A resumed run's table continues; rows of epochs that are trained again are
    replaced.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.csv"

    def on_fit_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Count the memory of this run, not of one before it in the same process."""
        if module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(module.device)

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let a run folder be moved: Lightning forgets the best epoch where its checkpoints lie elsewhere.

        No path is taken from the checkpoint, which may be anybody's: Lightning deletes what was the best before.
        """
        here = (self.path.parent / "checkpoints").resolve()
        for state in checkpoint["callbacks"].values():
            if "dirpath" in state:
                own = str(here / ("best.ckpt" if state["monitor"] else "last.ckpt"))
                for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
                    state[key] = own if state[key] else ""
                state["best_k_models"] = dict.fromkeys([own] * bool(state["best_k_models"]), state["best_model_score"])
                state["dirpath"] = str(here)

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Start the clock; note the learning rate, which validation may lower for the next epoch."""
        self._images, self._started = 0, time.perf_counter()
        self._learning_rate = trainer.optimizers[0].param_groups[0]["lr"]
        self._validation = {}

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: dict, index: int
    ) -> None:
        """Count images."""
        self._images += len(batch["image"]) * trainer.world_size
        if trainer.is_last_batch and module.device.type == "cuda":
            torch.cuda.synchronize(module.device)  # the host runs ahead
        self._stopped = time.perf_counter()

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Note what validation gave: Lightning's own record of it outlasts the epoch."""
        metrics = trainer.callback_metrics.items()
        self._validation = {name: float(value) for name, value in metrics if name.startswith("val/")}

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Write the row and the line; log pace and learning rate, to W&B too."""
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

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
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


class Signals(Callback):
    """Leaves SIGTERM to whoever answered it before.

    Lightning would go on to the end of the step and end the program with status 0; with several processes it would have
    them wait for each other at the signal, wherever each of them is.
    """

    def setup(self, trainer: lightning.Trainer, module: lightning.LightningModule, stage: str) -> None:
        """Lightning takes the signal between this hook and the next ones."""
        self._answer = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Give it back."""
        if signal.getsignal(signal.SIGTERM) is not self._answer:  # as it is in a thread, which may set none
            signal.signal(signal.SIGTERM, self._answer)

    on_validation_start = on_test_start = on_predict_start = on_train_start


class Patience(EarlyStopping):
    """Ends training when so many epochs have brought no lower validation loss.

    It counts them where training is never to end so, too: a run that goes on may be given another patience, which
    then holds for the epochs before as well.

    Args:
        epochs: how many; None: training does not end.
    """

    def __init__(self, epochs: int | None) -> None:
        super().__init__("val/loss", patience=math.inf if epochs is None else epochs, check_finite=epochs is not None)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting, with the patience that the run is continued with."""
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Train no epoch more than a run that was not cut."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


def _reason(trainer: lightning.Trainer) -> str:
    """What made training end early; Lightning keeps it to itself."""
    stopping, loss = trainer.early_stopping_callback, trainer.callback_metrics.get("val/loss")
    if stopping is not None and stopping.wait_count >= stopping.patience:
        return f"no lower validation loss (trainer.early_stopping={stopping.patience})"
    if stopping is not None and loss is not None and not loss.isfinite():
        return "the validation loss is not a number"
    return "the time is up (trainer.max_time)"


def quieten() -> None:
    """Keep Lightning's announcements and its own deprecations out of the log: what matters is in our lines."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated")
    warnings.filterwarnings("ignore", "Found .* module.* in eval mode")  # a frozen backbone
    warnings.filterwarnings("ignore", "It is recommended to use .*sync_dist")  # ours are of all ranks already
    warnings.filterwarnings("ignore", ".*all_gather is deprecated")
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")  # a resumed run


def progress() -> list[Callback]:
    """A progress bar in a terminal; in a log the epoch's line is enough."""
    return [RichProgressBar(leave=False)] if sys.stdout.isatty() and ranks.rank() == 0 else []


@contextmanager
def wandb_logger(run: Run) -> Iterator[WandbLogger | None]:
    """The run's Weights & Biases logger, or None where `logger=csv` was chosen; closed when the block ends.

    Online where a key is configured and the server answers, else offline. It never asks for a key, never stops
    training, and waits for the server no longer than `PATIENCE` seconds to start and as long again to finish; what was
    not sent by then stays in the run folder for `wandb sync`. The environment variable WANDB_MODE overrules.

    The run's name is the run folder's, its group the folder above: the multirun.
    """
    if run.config.logger.project is None or ranks.rank():
        yield None
        return
    os.environ.setdefault("WANDB_SILENT", "true")  # one line of ours says where the run is
    import wandb

    logger = _start(run, _mode())
    try:
        yield logger
    except BaseException:
        wandb.finish(exit_code=1)
        raise
    wandb.finish()


def _start(run: Run, mode: str) -> WandbLogger | None:
    import wandb

    patience = PATIENCE if mode == "online" else OFFLINE
    own = {
        "name": run.name,
        "group": run.folder.parent.name if (run.folder.parent / "multirun.yaml").exists() else None,
        "id": re.sub(r"\W+", "-", f"{run.environment['started']}-{run.name}")[:128],
        "config": OmegaConf.to_container(run.config),
        "save_dir": run.folder,
        "mode": mode,
        "settings": wandb.Settings(init_timeout=patience, finish_timeout=patience, console="off", silent=True),
    }
    options = OmegaConf.to_container(run.config.logger)
    if taken := [key for key in options if key in (*own, "dir", "experiment")]:
        raise InputError(f"logger.{taken[0]}={options[taken[0]]}: each run has its own; leave it out")
    logger = WandbLogger(**own, **options)
    try:
        logger.experiment  # noqa: B018  starts it
    except Exception as error:  # whatever the server or the client runs into must not stop training
        wandb.teardown()
        if mode == "offline":
            log.warning("Weights & Biases did not start (%s): metrics.csv alone is written", error)
            return None
        log.warning("Weights & Biases did not start (%s): logging offline", error)
        return _start(run, "offline")
    if logger.experiment.url:
        log.info("Weights & Biases: %s", logger.experiment.url)
    return logger


def _mode() -> str:
    """online, offline, or what WANDB_MODE says; a log line gives the reason.

    wandb's own login would verify the key over the network for twenty seconds, hence a look at where keys are kept
    and one short request.
    """
    if "WANDB_MODE" in os.environ:
        return os.environ["WANDB_MODE"]
    import wandb

    server = wandb.setup().settings.base_url
    if not _key_configured(urlsplit(server).hostname):
        log.info("Weights & Biases: no key is configured (wandb login): logging offline")
        return "offline"
    try:
        urlopen(server, timeout=ANSWER).close()
    except HTTPError:  # an answer
        pass
    except OSError as error:
        log.warning("Weights & Biases: %s cannot be reached (%s): logging offline", server, error)
        return "offline"
    return "online"


def _key_configured(host: str) -> bool:
    if os.environ.keys() & {"WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"}:
        return True
    try:
        return netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, NetrcParseError):
        return False
