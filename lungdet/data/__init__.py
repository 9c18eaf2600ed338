"""From dataset folders to batches: manifest, split, prepared store, augmentation, loaders."""
