"""A control: the CNN-LSTM's steps, pooled instead of read."""

from torch import Tensor, nn

from lungdet.models import sequence
from lungdet.models.classifier import Classifier


class Pool(Classifier):
    """Features -> the CNN-LSTM's steps -> their mean, plain or weighted -> fully connected.

    Args:
        backbone, shared: see `Classifier`.
        pooling: `mean` or `attention`; see `lungdet.models.sequence.Pooling`.
    """

    def __init__(self, backbone: nn.Module, *, pooling: str = "mean", **shared) -> None:
        super().__init__(backbone, **shared)
        self.steps = sequence.Steps(backbone.channels, self.sequence, self.visits, self.gap)
        self.pooling = sequence.Pooling(pooling, self.steps.width)
        self.head = self.fully_connected(self.steps.width)

    def forward(self, image: Tensor, length: Tensor, when: Tensor | None = None, case: Tensor | None = None) -> Tensor:
        """(S, 1, H, W), (N,) -> logits (N, O)."""
        features = self.backbone(self.steps.images(image, length))
        return self.classify(self.pooling(*self.steps(features, length, when)))
