"""What happens between the steps of a fit, beside recording: randomness, what learns from when on, its end."""

import logging
import math
import signal
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch.optim import Optimizer

log = logging.getLogger(__name__)


class Seeding(Callback):
    """Draws each epoch's dropout anew from (seed, epoch, rank), so that a resumed run continues as it would have."""

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: dict, index: int) -> None:
        """Before the first batch, when its loader has drawn what it draws."""
        if index == 0:
            torch.manual_seed(hash((module.seed, trainer.current_epoch, trainer.global_rank)) % 2**63)


class Unfreezing(Callback):
    """Leaves the backbone alone until `model.backbone.unfreeze_at` epochs are trained.

    Its parameters are the optimizer's from the start, and have no gradient until then: so schedules know their
    learning rates, and a resumed run finds their state. Lightning's `BackboneFinetuning` adds them later, to an
    optimizer whose schedule does not follow.
    """

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Freeze or unfreeze: DDP, which is told of no parameter later, has counted those that learn by now."""
        frozen = trainer.current_epoch < module.backbone.unfreeze_at
        module.backbone.freeze(frozen)
        if trainer.current_epoch == module.backbone.unfreeze_at:
            log.info("from epoch %d on the backbone learns, too", trainer.current_epoch + 1)


class LastStep(Callback):
    """Gives an epoch's last step its full length where fewer batches are left for it than other steps take.

    Lightning divides by `trainer.accumulate_grad_batches` there, too.
    """

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: Optimizer) -> None:
        """Make the gradient, which is not clipped yet, the mean of those batches that there are."""
        batches = trainer.num_training_batches % trainer.accumulate_grad_batches
        if batches and trainer.is_last_batch:
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(trainer.accumulate_grad_batches / batches)


class Signals(Callback):
    """Leaves SIGTERM to whoever answered it before.

    Lightning would go on to the end of the step and end the program with status 0; with several processes it would have
    them wait for each other at the signal, wherever each of them is.
    """

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Lightning takes the signal between this hook and the next ones."""
        self._answer = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
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

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Train no epoch more than a run that was not cut."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
