"""From predictions to numbers: metrics, thresholds, intervals, comparisons; pure functions, no torch."""
