"""Gather: the runs that an evaluation is about, and what was found beside them and why it is not."""

from collections.abc import Sequence
from pathlib import Path

from lungdet.evaluation.gathering import trials
from lungdet.evaluation.gathering.results import Result, Skipped, collect
from lungdet.runs import multirun


def gather(folders: Sequence[Path]) -> tuple[list[Result], list[Skipped]]:
    """The runs in these folders, of a search its best; and those that are not whole, or that a multirun never started.

    Raises:
        EvaluationError: see `results.collect` and `trials.best`.
        RunError: a run that was named has no predictions.
    """
    results, skipped = collect(folders)
    for job in (job for folder in folders for job in multirun.never_run(folder)):
        reason = f"job {job.number} of the multirun left no run: {' '.join(job.overrides)}"
        skipped.append(Skipped(job.multirun / str(job.number), reason))
    return trials.best(results), skipped
