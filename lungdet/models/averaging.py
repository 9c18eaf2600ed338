"""A running average of a network's weights: what it is kept of, and how a step is taken into it."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def averaged(network: nn.Module) -> dict[str, Tensor]:
    """The network's own tensors, by name, that an average is kept of: weights, and batch norm's statistics.

    What is counted, such as batch norm's batches, is not among them: a mean of it would be rounded.
    """
    return {name: value for name, value in network.state_dict().items() if value.is_floating_point()}


def update(average: Mapping[str, Tensor], weights: Mapping[str, Tensor], share: float) -> None:
    """Move an average, in place, by this share of the way to the weights, which are in the same order."""
    get_ema_multi_avg_fn(1 - share)([*average.values()], [*weights.values()], None)
