"""The study's CNN: convolutional features, pooled, then fully connected layers."""

from torch import Tensor, nn

from lungdet.models.classifier import Classifier


class CNN(Classifier):
    """Features -> mean over the grid -> fully connected.

    Args:
        backbone: (S, 1, H, W) -> (S, C, h, w).
        hidden: units of the fully connected layer.
        dropout: probability, before each fully connected layer.
        sequence: accepted so that one sweep can set it for both models; the grid is averaged whatever it says.
        training: see `Classifier`.
    """

    def __init__(self, backbone: nn.Module, *, hidden: int, dropout: float, sequence: str = "rows", **training) -> None:
        super().__init__(backbone, sequence=sequence, **training)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(backbone.channels, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, self.outputs),
        )

    def forward(self, image: Tensor, length: Tensor) -> Tensor:
        """(S, 1, H, W), (N,) -> logits (N, O); of a series the last image is read."""
        features = self.backbone(image[length.cumsum(0) - 1])  # (N, C, h, w)
        return self.classify(features)
