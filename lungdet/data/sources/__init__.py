"""The readers: from a dataset's own files to the manifest."""
