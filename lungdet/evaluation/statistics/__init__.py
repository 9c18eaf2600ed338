"""From predictions to numbers: metrics, thresholds, intervals, comparisons; no torch, no words."""
