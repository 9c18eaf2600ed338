"""Trials: of what a search tried, the run with the lowest validation loss is evaluated, and the others are counted."""

import math
from collections.abc import Sequence
from dataclasses import replace

from lungdet.evaluation.gathering.models import identity
from lungdet.evaluation.gathering.parts import part_of
from lungdet.evaluation.gathering.results import EvaluationError, Result, Trial


def best(results: Sequence[Result]) -> list[Result]:
    """The runs to evaluate: those of no search, and of each search the best trial, which holds all in `trials`.

    Trials are of one search where their configurations are equal but for the keys that were searched
    (`sweep.searched`), the seed counting. The best has the lowest validation loss: test data chooses nothing.

    Raises:
        EvaluationError: a trial of a search has no validation loss.
    """
    keys = set().union(*[_searched(result) for result in results])
    chosen = [result for result in results if not _searched(result)]
    searches: dict[tuple, list[Result]] = {}
    for result in results:
        if _searched(result):
            fixed = {key: value for key, value in identity(result.run).items() if not _within(key, keys)}
            search = (result.seed, part_of(result.run).name, tuple(sorted(fixed.items())))
            searches.setdefault(search, []).append(result)
    for candidates in searches.values():
        trials = [_trial(result) for result in candidates]
        if unknown := [trial.folder for trial in trials if math.isnan(trial.loss)]:
            raise EvaluationError(
                f"{unknown[0]}/metrics.csv: no validation loss in it, so which trial of the search was the best is not "
                "known; name the run to evaluate without sweep.searched in its config.yaml"
            )
        place = min(range(len(trials)), key=lambda place: trials[place].loss)
        chosen.append(replace(candidates[place], trials=tuple(trials)))
    return chosen


def _searched(result: Result) -> list[str]:
    """The keys whose values a search chose for this run, as it was told by `lungdet.sweeps.search`; usually none."""
    return list((result.run.config.get("sweep") or {}).get("searched") or [])


def _within(key: str, searched: set[str]) -> bool:
    """Whether a key, or the group that it belongs to, was searched."""
    groups = {key_or_group.replace("/", ".") for key_or_group in searched}
    return key in groups or any(key.startswith(f"{group}.") for group in groups)


def _trial(result: Result) -> Trial:
    loss, keys = float(result.run.epochs["val/loss"].min()), set(_searched(result))
    values = {key: value for key, value in sorted(identity(result.run).items()) if _within(key, keys)}
    return Trial(result.run.folder, loss, values)
