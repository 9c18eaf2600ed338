"""A control: the CNN-LSTM's steps, pooled instead of read."""

from torch import Tensor, nn

from lungdet.models.classifier import Classifier
from lungdet.models.sequence import Pooling, Steps


class Pool(Classifier):
    """Features -> the CNN-LSTM's steps -> their mean, plain or weighted -> fully connected.

    Args:
        backbone: (S, 1, H, W) -> (S, C, h, w).
        hidden: units of the fully connected layer.
        dropout: probability, before each fully connected layer.
        pooling: `mean` or `attention`; see `lungdet.models.sequence.Pooling`.
        training: see `Classifier`.
    """

    def __init__(self, backbone: nn.Module, *, hidden: int, dropout: float, pooling: str = "mean", **training) -> None:
        super().__init__(backbone, **training)
        self.steps = Steps(backbone.channels, self.sequence, self.visits, self.gap)
        self.pooling = Pooling(pooling, self.steps.width)
        self.head = self.fully_connected(self.steps.width, hidden, dropout)

    def forward(self, image: Tensor, length: Tensor, when: Tensor | None = None, case: Tensor | None = None) -> Tensor:
        """(S, 1, H, W), (N,) -> logits (N, O); `when` as in `Steps`."""
        features = self.backbone(self.steps.images(image, length))
        return self.classify(self.pooling(*self.steps(features, length, when)))
