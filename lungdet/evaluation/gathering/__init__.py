"""Which runs there are, which may be compared, and what a model is called."""
