"""The study's CNN-LSTM: convolutional features, read as a sequence by LSTM layers, then fully connected layers."""

from torch import Tensor, nn

from lungdet.models import sequence
from lungdet.models.classifier import Classifier


class CNNLSTM(Classifier):
    """Features -> a sequence of steps -> LSTM layers -> their outputs pooled -> fully connected.

    Args:
        backbone, shared: see `Classifier`.
        layers: LSTM layers, with `dropout` between them.
        width: units of each.
        bidirectional: read a map's sequence from its end, too.
        pooling: of the outputs; see `lungdet.models.sequence.Pooling`.
        shuffle, frozen: controls: the order says nothing; the LSTM stays at its random start.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        layers: int,
        width: int,
        bidirectional: bool = False,
        pooling: str = "last",
        shuffle: bool = False,
        frozen: bool = False,
        **shared,
    ) -> None:
        super().__init__(backbone, **shared)
        self.steps = sequence.Steps(backbone.channels, self.sequence, self.visits, self.gap, shuffle, bidirectional)
        between = self.dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(
            self.steps.width, width, layers, batch_first=True, dropout=between, bidirectional=bidirectional
        ).requires_grad_(not frozen)
        self.pooling = sequence.Pooling(pooling, width, bidirectional)
        self.head = self.fully_connected(self.pooling.width)

    def forward(self, image: Tensor, length: Tensor, when: Tensor | None = None, case: Tensor | None = None) -> Tensor:
        """(S, 1, H, W), (N,) -> logits (N, O)."""
        features = self.backbone(self.steps.images(image, length))  # (N, C, h, w), or (S, C, h, w) of visits
        steps, count = self.steps(features, length, when, case)  # (N, T, D), of which (N,) are real
        outputs, _ = self.lstm(steps)
        return self.classify(self.pooling(outputs, count))
