"""What has weights: the shared backbone, and the CNN and CNN-LSTM that differ in their heads."""
