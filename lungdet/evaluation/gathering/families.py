"""Families: which runs may be compared, because they met the same test; each gets a report."""

import itertools
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lungdet.data.manifest import first_image
from lungdet.evaluation.gathering import peers
from lungdet.evaluation.gathering.models import Model, group
from lungdet.evaluation.gathering.parts import ALONE, part_of
from lungdet.evaluation.gathering.peer_file import PeerFile
from lungdet.evaluation.gathering.peers import Tested
from lungdet.evaluation.gathering.results import EvaluationError, Result, Skipped

log = logging.getLogger(__name__)


def require_pairs(results: Sequence[Result], hashes: bool = True) -> None:
    """Passes only runs that were tested on the same images with the same labels.

    Runs on several folds of one cross-validation, or on several held-out sources, are compared part by part.

    Args:
        results: the runs.
        hashes: whether the test parts' hashes must agree too; not where other data was scored.

    Raises:
        EvaluationError: two runs differ; both are named, with both hashes.
    """
    first = results[0]
    parts: dict[str, Result] = {}
    for second in results:
        part = part_of(second.run)
        refusal = f"runs {first.run.folder} and {second.run.folder} cannot be compared"
        if second.labels != first.labels:
            raise EvaluationError(
                f"{refusal}: one was trained with task={first.run.config.task}, one with "
                f"task={second.run.config.task}; evaluate them one at a time"
            )
        if part.family != part_of(first.run).family:
            raise EvaluationError(_other_test(first, second, refusal))
        _require_same(parts.setdefault(part.name, second), second, hashes)
    tests = list(parts.values())
    for first, second in itertools.combinations(tests, 2):
        shared = first.test.image_id[first.test.image_id.isin(second.test.image_id)]
        if len(shared):
            raise EvaluationError(
                f"runs {first.run.folder} and {second.run.folder} cannot be taken together: both were tested on "
                f"{len(shared)} image(s), the first is {shared.iloc[0]}; they were split from different data"
            )


class Family(NamedTuple):
    """Runs that one report is on, where it is written, and the runs that it names and is not on."""

    results: list[Result]
    skipped: list[Skipped]
    out: Path

    def compared(self, files: Mapping[str, PeerFile], hashes: bool) -> tuple["Family", dict[Model, Sequence[Tested]]]:
        """The models of the runs, then other systems; and the family, with runs that are left out among the skipped.

        Args:
            files: other systems' predictions, by their names.
            hashes: see `require_pairs`.

        Raises:
            EvaluationError: see `require_pairs`, `models.group` and `peers.group`.
        """
        require_pairs(self.results, hashes)
        replicates, left_out = group(self.results)
        return self._replace(skipped=[*self.skipped, *left_out]), replicates | peers.group(files, replicates)


def divided(
    results: Sequence[Result], skipped: Sequence[Skipped], out: Path, together: bool
) -> tuple[list[Family], EvaluationError | None]:
    """Runs by what they were tested on and asked: only those of one family can be compared.

    Args:
        results: the runs.
        skipped: those that could not be evaluated.
        out: the folder of the report.
        together: they are one family, which is refused where they cannot be compared.

    Returns:
        The families, each with a folder of its own in `out` where there are several, named by the task and by the
        folds, sources or test part; and the error of those that cannot be evaluated, or None.
    """
    if together:
        return [Family([*results], [*skipped], out)], None
    families: dict[str, list[Result]] = {}
    for result in results:
        part = part_of(result.run)
        tested = re.sub(r"[^a-z0-9]+", "-", part.family) if part.kind != ALONE else f"test-{result.test_hash[:8]}"
        families.setdefault(f"{result.run.config.task}-{tested}", []).append(result)
    if len(families) == 1:
        return [Family([*results], [*skipped], out)], None
    log.warning("the runs have not all one task and test part: %d reports, each in a folder of %s", len(families), out)
    broken = {name: reason for name, runs in families.items() if (reason := _broken(runs))}
    named = [(name, result.run.folder) for name, runs in families.items() for result in runs]
    whole = [
        Family(
            families[name],
            [*skipped, *[_elsewhere(family, folder, broken) for family, folder in named if family != name]],
            out / name,
        )
        for name in families
        if name not in broken
    ]
    reasons = "\n".join(f"no report on {name}: {reason}" for name, reason in broken.items())
    return whole, EvaluationError(reasons) if broken else None


def require_one_part(results: Sequence[Result]) -> None:
    """Passes only runs of one fold or held-out source, before they score other data.

    Raises:
        EvaluationError: there are several; on the same images their predictions cannot be pooled.
    """
    parts = {part_of(result.run): result.run.folder for result in results}
    if len(parts) > 1:
        first, second, *_ = parts.values()
        raise EvaluationError(
            f"runs {first} and {second} cannot be scored on other data together: they are networks of several folds or "
            "held-out sources; name those of one"
        )


def _require_same(first: Result, second: Result, hashes: bool) -> None:
    """The same images with the same labels, every target that both recorded."""
    refusal = f"runs {first.run.folder} and {second.run.folder} cannot be compared"
    if hashes and first.test_hash != second.test_hash:
        raise EvaluationError(_other_test(first, second, refusal))
    if not first.test.image_id.equals(second.test.image_id):
        alone = sorted(set(first.test.image_id) ^ set(second.test.image_id))
        raise EvaluationError(
            f"{refusal}: {len(alone)} image(s) were predicted by one alone, the first is {alone[0]} "
            f"(hash {first.test_hash} and {second.test_hash})"
        )
    persons, second_persons = first_image(first.test), first_image(second.test)  # whatever key they go by
    differing = {"patient_id": persons != second_persons, "dataset": first.test["dataset"] != second.test["dataset"]}
    for column, unlike in differing.items():
        if unlike.any():
            name = first.test.image_id[unlike].iloc[0]
            raise EvaluationError(
                f"{refusal}: {column} differs on {int(unlike.sum())} image(s), the first is {name}; they were trained "
                "with different tables"
            )
    for column in first.test.columns.intersection(second.test.columns):
        labels, second_labels = first.test[column], second.test[column]
        if column.startswith("target_") and not np.array_equal(labels, second_labels, equal_nan=True):
            name = first.test.image_id[(labels != second_labels) & ~(labels.isna() & second_labels.isna())].iloc[0]
            raise EvaluationError(
                f"{refusal}: their labels differ, first {column.removeprefix('target_')} on {name} (hash "
                f"{first.test_hash} and {second.test_hash}); they were trained with different tables or releases of "
                "the labels"
            )


def _other_test(first: Result, second: Result, refusal: str) -> str:
    return (
        f"{refusal}: their test parts differ (hash {first.test_hash} and {second.test_hash}). Train both with the "
        "same data, data.split and data.split_seed, or evaluate them one at a time"
    )


def _broken(results: Sequence[Result]) -> str | None:
    """Why runs of one family cannot be evaluated, or None."""
    try:
        require_pairs(results)
        group(results)
    except EvaluationError as error:
        return str(error)
    return None


def _elsewhere(family: str, folder: Path, broken: Mapping[str, str]) -> Skipped:
    if family in broken:
        return Skipped(folder, broken[family])
    return Skipped(folder, "of another task, or tested on other images", f"../{family}/report.html")
