"""Batch norm's statistics are estimated anew before each validation, of the weights that are validated."""

from collections.abc import Iterable

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.compiler import set_stance

from lungdet.data.serving.batches import Batches
from lungdet.models.classifier import Classifier

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
SHARE, FEWEST, MOST = 1 / 20, 256, 1024
"""Of the training images, at least and at most: what fewer err shows in test log loss (docs/recipe.md)."""


class Estimating(Callback):
    """Estimates the statistics that validation uses on training images, which are not augmented, as in validation.

    Those that training keeps are of augmented images and of weights of many steps, and an average of them is of no
    network at all (Izmailov et al. 2018, arXiv 1803.05407). A layer that training leaves as it is keeps its own.

    Every process goes through the same images: the network that it validates is the one that is saved.
    """

    def __init__(self) -> None:
        self._norms: list[nn.Module] = []
        self._batches: Batches | None = None

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the layers that learn: in validation all of them look alike."""
        norms = [layer for layer in module.modules() if isinstance(layer, BATCH_NORMS)]
        self._norms = [norm for norm in norms if norm.training and norm.track_running_stats]

    def on_validation_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Estimate, once the weights to validate are in their place."""
        if not self._norms or trainer.state.fn != "fit":
            return
        if self._batches is None:
            images = int(SHARE * len(trainer.datamodule.rows("train")))
            self._batches = trainer.datamodule.sample_dataloader(min(MOST, max(FEWEST, images)))
        with trainer.precision_plugin.forward_context(), set_stance("force_eager"):  # it is compiled for other momenta
            estimate(module, self._norms, self._batches)


def estimate(model: Classifier, norms: Iterable[nn.Module], batches: Iterable[dict[str, Tensor]]) -> None:
    """Make batch norm's running statistics the mean of those of these batches, each weighing by its cases.

    Args:
        model: in evaluation; nothing else of it changes.
        norms: the layers.
        batches: as `lungdet.data.serving.batches.Batches` yields them; without a gradient.
    """
    states = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm, _, _ in states:
        norm.reset_running_stats()
        norm.train()
    cases = 0
    for batch in batches:
        cases += len(batch["row"])
        for norm, _, _ in states:
            norm.momentum = len(batch["row"]) / cases
        model.logits(batch)
    for norm, momentum, count in states:
        norm.momentum = momentum
        norm.num_batches_tracked.copy_(count)  # of training's
        norm.eval()
