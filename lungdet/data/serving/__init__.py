"""From the store to batches on a device."""
