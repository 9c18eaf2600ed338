"""Averaged weights: a model is validated, saved and tested with a running average of the weights that learn."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lungdet.models.averaging import averaged, update

LEARNING = "current_model_state"
"""Where a checkpoint keeps the weights that learn, as Lightning calls them; `state_dict` holds the averaged ones."""


class Averaging(Callback):
    """Keeps an exponential moving average of the weights, a step after the other.

    Of batch norm's statistics, too, but validation has others, see `lungdet.training.estimating`. All that follows
    validation follows the average: the best epoch, the learning rate's plateaus, early stopping, predictions.

    In the beginning, as long as `decay` spans more, it is of all steps so far, each weighing by its number: the random
    start is in none, and few steps are averaged as calmly as many (Shamir and Zhang 2013, arXiv 1212.1824).

    Lightning's `WeightAveraging` has no such beginning, waits for the GPU at each step, averages whole numbers, and
    takes the last average into any validation after the fit.

    Args:
        decay: the share of the average that a step leaves, between 0 and 1: it spans about 1 / (1 - decay) steps.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}
        self._steps = 0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Begin with the weights as they are, or as a checkpoint had their average."""
        loaded, self._steps = self.average, trainer.global_step
        self._weights = averaged(module)
        self.average = {name: value.clone() for name, value in self._weights.items()}
        for name, value in loaded.items():
            self.average[name].copy_(value)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: dict, index: int
    ) -> None:
        """Take in the step that was made, if one was: gradients may still be added up."""
        if trainer.global_step > self._steps:
            self._steps = trainer.global_step
            update(self.average, self._weights, max(1 - self.decay, 2 / (1 + self._steps)))

    def on_validation_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Put the average in the model's place, and the weights that learn in its own."""
        for name, average in self.average.items():
            weights = self._weights[name]
            learning = weights.clone()
            weights.copy_(average)
            average.copy_(learning)

    on_validation_epoch_end = on_validation_epoch_start  # and back

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average as the model, and beside it what a run goes on from."""
        checkpoint[LEARNING] = checkpoint["state_dict"]
        checkpoint["state_dict"] = checkpoint["state_dict"] | self.average

    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let the weights that learn go on; who only predicts has the average already."""
        if trainer.state.fn == "fit":
            weights = checkpoint["state_dict"].items()
            self.average = {name: value for name, value in weights if value.is_floating_point()}
            module.load_state_dict(checkpoint[LEARNING])

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Be done: a validation after the fit is of the weights that it is given."""
        self.average = {}
