"""The study's CNN: convolutional features, pooled, then fully connected layers."""

from torch import Tensor, nn

from lungdet.models import sequence
from lungdet.models.classifier import Classifier


class CNN(Classifier):
    """Features -> mean over the grid -> fully connected. Of a series it looks at the last image.

    Args:
        backbone, shared: see `Classifier`.
    """

    def __init__(self, backbone: nn.Module, **shared) -> None:
        super().__init__(backbone, **shared)
        self.visits = 1
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *self.fully_connected(backbone.channels))

    def forward(self, image: Tensor, length: Tensor, when: Tensor | None = None, case: Tensor | None = None) -> Tensor:
        """(S, 1, H, W), (N,) -> logits (N, O)."""
        features = self.backbone(sequence.last_images(image, length))  # (N, C, h, w)
        return self.classify(features)
