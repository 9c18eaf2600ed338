"""A control: as many parameters as the CNN-LSTM has, and no recurrence."""

import torch
from torch import Tensor, nn

from lungdet.models import sequence
from lungdet.models.classifier import Classifier


class CNNMLP(Classifier):
    """Features -> the CNN-LSTM's steps -> layers without a memory -> fully connected.

    Every step passes the same layer; the last step's outcome, beside the mean over all, passes another. So it knows
    what the last step shows and what all show, and not in which order. The first layer is as wide as it takes to have
    the LSTM's parameters, to within 1 %.

    Args:
        backbone, shared: see `Classifier`; `dropout` is that between these layers, too.
        layers: of the LSTM that is matched.
        width: of the LSTM that is matched.
    """

    def __init__(self, backbone: nn.Module, *, layers: int, width: int, **shared) -> None:
        super().__init__(backbone, **shared)
        self.steps = sequence.Steps(backbone.channels, self.sequence, self.visits, self.gap)
        lstm = nn.LSTM(self.steps.width, width, layers, device="meta")  # to be counted
        parameters = sum(parameter.numel() for parameter in lstm.parameters())
        units = round((parameters - width) / (self.steps.width + 1 + 2 * width))
        self.each = nn.Sequential(nn.Linear(self.steps.width, units), nn.ReLU(inplace=True), nn.Dropout(self.dropout))
        self.last, self.mean = sequence.Pooling("last", units), sequence.Pooling("mean", units)
        self.joined = nn.Sequential(nn.Linear(2 * units, width), nn.ReLU(inplace=True))
        self.head = self.fully_connected(width)

    def forward(self, image: Tensor, length: Tensor, when: Tensor | None = None, case: Tensor | None = None) -> Tensor:
        """(S, 1, H, W), (N,) -> logits (N, O)."""
        features = self.backbone(self.steps.images(image, length))
        steps, count = self.steps(features, length, when)  # (N, T, D), (N,)
        outcome = self.each(steps)
        return self.classify(self.joined(torch.cat([self.last(outcome, count), self.mean(outcome, count)], dim=1)))
