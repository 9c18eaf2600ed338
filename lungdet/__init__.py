"""lungdet: train, compare and hand over chest-radiograph classifiers."""
