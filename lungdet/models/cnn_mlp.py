"""A control: as many parameters as the CNN-LSTM has, and no recurrence."""

import torch
from torch import Tensor, nn

from lungdet.models.classifier import Classifier
from lungdet.models.sequence import Pooling, Steps


class CNNMLP(Classifier):
    """Features -> the CNN-LSTM's steps -> layers without a memory -> fully connected.

    Every step passes the same layer; the last step's outcome, beside the mean over all, passes another. So it knows
    what the last step shows and what all show, and not in which order. The first layer is as wide as it takes to have
    the LSTM's parameters, to within 1 %.

    Args:
        backbone: (S, 1, H, W) -> (S, C, h, w).
        hidden: units of the fully connected layer.
        dropout: probability, before each fully connected layer and between these layers.
        layers: of the LSTM that is matched.
        width: of the LSTM that is matched.
        training: see `Classifier`.
    """

    def __init__(
        self, backbone: nn.Module, *, hidden: int, dropout: float, layers: int, width: int, **training
    ) -> None:
        super().__init__(backbone, **training)
        self.steps = Steps(backbone.channels, self.sequence, self.visits, self.gap)
        read = self.steps.width
        lstm = nn.LSTM(read, width, layers, device="meta")  # to be counted
        parameters = sum(parameter.numel() for parameter in lstm.parameters())
        units = round((parameters - width) / (read + 1 + 2 * width))
        self.each = nn.Sequential(nn.Linear(read, units), nn.ReLU(inplace=True), nn.Dropout(dropout))
        self.last, self.mean = Pooling("last", units), Pooling("mean", units)
        self.joined = nn.Sequential(nn.Linear(2 * units, width), nn.ReLU(inplace=True))
        self.head = self.fully_connected(width, hidden, dropout)

    def forward(self, image: Tensor, length: Tensor, when: Tensor | None = None, case: Tensor | None = None) -> Tensor:
        """(S, 1, H, W), (N,) -> logits (N, O); `when` as in `Steps`."""
        features = self.backbone(self.steps.images(image, length))
        steps, count = self.steps(features, length, when)  # (N, T, D), (N,)
        outcome = self.each(steps)
        return self.classify(self.joined(torch.cat([self.last(outcome, count), self.mean(outcome, count)], dim=1)))
