"""The study's CNN-LSTM: convolutional features, read as a sequence by LSTM layers, then fully connected layers."""

from torch import Tensor, nn

from lungdet.models.classifier import Classifier


class CNNLSTM(Classifier):
    """Features -> a sequence of steps -> LSTM layers, read at the last step -> fully connected.

    Args:
        backbone: (S, 1, H, W) -> (S, C, h, w).
        hidden: units of the fully connected layer.
        dropout: probability, before each fully connected layer and between LSTM layers.
        sequence: what a step is: `rows` (top to bottom, the mean over a row's columns), `columns` (the image's left
            to right, the mean over a column's rows) or `patches` (every grid cell, row by row).
        layers: LSTM layers.
        width: units of each.
        training: see `Classifier`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        hidden: int,
        dropout: float,
        sequence: str = "rows",
        layers: int,
        width: int,
        **training,
    ) -> None:
        super().__init__(backbone, sequence=sequence, **training)
        self.lstm = nn.LSTM(backbone.channels, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(width, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, self.outputs),
        )

    def forward(self, image: Tensor, length: Tensor) -> Tensor:
        """(S, 1, H, W), (N,) -> logits (N, O); of a series the last image is read."""
        features = self.backbone(image[length.cumsum(0) - 1])  # (N, C, h, w)
        outputs, _ = self.lstm(self.steps(features))
        return self.classify(outputs[:, -1])

    def steps(self, features: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, steps, C)."""
        if self.sequence == "rows":
            steps = features.mean(3)
        elif self.sequence == "columns":
            steps = features.mean(2)
        else:
            steps = features.flatten(2)
        return steps.transpose(1, 2)
