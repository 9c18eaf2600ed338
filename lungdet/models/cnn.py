"""The study's CNN: convolutional features, pooled, then fully connected layers."""

from torch import Tensor, nn

from lungdet.models.classifier import Classifier
from lungdet.models.sequence import last_images


class CNN(Classifier):
    """Features -> mean over the grid -> fully connected. Of a series it looks at the last image.

    Args:
        backbone: (S, 1, H, W) -> (S, C, h, w).
        hidden: units of the fully connected layer.
        dropout: probability, before each fully connected layer.
        training: see `Classifier`.
    """

    def __init__(self, backbone: nn.Module, *, hidden: int, dropout: float, **training) -> None:
        super().__init__(backbone, **training)
        self.visits = 1
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), *self.fully_connected(backbone.channels, hidden, dropout)
        )

    def forward(self, image: Tensor, length: Tensor, when: Tensor | None = None, case: Tensor | None = None) -> Tensor:
        """(S, 1, H, W), (N,) -> logits (N, O)."""
        features = self.backbone(last_images(image, length))  # (N, C, h, w)
        return self.classify(features)
