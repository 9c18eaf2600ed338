"""What a run is on disk, and when two runs are the same."""
