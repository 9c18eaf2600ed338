"""One run: fitting, predicting, recording."""
