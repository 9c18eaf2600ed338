"""The study's CNN-LSTM: convolutional features, read as a sequence by LSTM layers, then fully connected layers."""

import torch
from torch import Tensor, nn

from lungdet.errors import InputError
from lungdet.models.classifier import Classifier
from lungdet.models.sequence import Pooling, Steps


class CNNLSTM(Classifier):
    """Features -> a sequence of steps -> LSTM layers -> their outputs pooled -> fully connected.

    Args:
        backbone: (S, 1, H, W) -> (S, C, h, w).
        hidden: units of the fully connected layer.
        dropout: probability, before each fully connected layer and between LSTM layers.
        layers: LSTM layers.
        width: units of each.
        bidirectional: read a map's sequence from its end, too.
        pooling: of the outputs; see `lungdet.models.sequence.Pooling`. Read both ways, `last` is each way's own.
        shuffle: a control: the order says nothing; see `lungdet.models.sequence.Steps`.
        frozen: a control: the LSTM stays at its random start.
        training: see `Classifier`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        hidden: int,
        dropout: float,
        layers: int,
        width: int,
        bidirectional: bool = False,
        pooling: str = "last",
        shuffle: bool = False,
        frozen: bool = False,
        **training,
    ) -> None:
        super().__init__(backbone, **training)
        if bidirectional and self.sequence == "visits":
            raise InputError(
                "model.bidirectional=true: a series of visits is read in time order alone, or a later image would "
                "change what is said of an earlier one; set it to false, or model.sequence to rows, columns or patches"
            )
        self.steps = Steps(backbone.channels, self.sequence, self.visits, self.gap, shuffle)
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(
            self.steps.width, width, layers, batch_first=True, dropout=between, bidirectional=bidirectional
        ).requires_grad_(not frozen)
        told = width * (2 if bidirectional else 1)
        self.pooling = Pooling(pooling, told)
        self.head = self.fully_connected(told, hidden, dropout)

    def forward(self, image: Tensor, length: Tensor, when: Tensor | None = None, case: Tensor | None = None) -> Tensor:
        """(S, 1, H, W), (N,) -> logits (N, O); `when` and `case` as in `Steps`."""
        features = self.backbone(self.steps.images(image, length))  # (N, C, h, w), or (S, C, h, w) of visits
        steps, count = self.steps(features, length, when, case)  # (N, T, D), (N,)
        outputs, (last, _) = self.lstm(steps)
        if self.lstm.bidirectional and self.pooling.how == "last":
            return self.classify(torch.cat([last[-2], last[-1]], dim=1))
        return self.classify(self.pooling(outputs, count))
