"""A finished run meets a new radiograph: `lungdet.load` in a notebook, `lungdet predict` for files."""
