"""A control: what the length of a series tells by itself."""

import torch
from torch import Tensor, nn

from lungdet.models import sequence
from lungdet.models.classifier import Classifier


class LengthOnly(Classifier):
    """How many images the case has, and the number of its last visit -> fully connected. It sees no pixel.

    Args:
        backbone: accepted so that one sweep can set it for all models; not used.
        shared: see `Classifier`.
    """

    def __init__(self, backbone: nn.Module, **shared) -> None:
        super().__init__(None, **shared)
        self.head = self.fully_connected(2)

    def forward(self, image: Tensor, length: Tensor, when: Tensor | None = None, case: Tensor | None = None) -> Tensor:
        """(S, 1, H, W), (N,) -> logits (N, O); without `when`, visits are taken to be counted from the first image."""
        visit = length - 1 if when is None else when[length.cumsum(0) - 1, sequence.GAPS.index("visit")]
        return self.classify(torch.stack([length, visit], dim=1).float().log1p())
