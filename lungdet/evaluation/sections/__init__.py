"""The sections of a report: each computes its own numbers and puts them into words."""
