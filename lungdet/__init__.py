"""lungdet: train, compare and hand over chest-radiograph classifiers."""


def __getattr__(name: str) -> object:
    """`lungdet.load`, imported with torch once it is asked for."""
    if name == "load":
        from lungdet.inference.loading import load

        return load
    raise AttributeError(f"module lungdet has no attribute {name}")
