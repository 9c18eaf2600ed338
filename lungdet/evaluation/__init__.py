"""Evaluation: begins where predictions stand on disk; statistics import no torch."""
