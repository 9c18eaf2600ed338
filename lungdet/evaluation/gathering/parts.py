"""Parts: which images a run was tested on, and how the runs of several folds or held-out sources are one model's test.

A run's split is a test part of its own, or one of several that belong together: a fold of five, a held-out source.
Runs of one model and seed on parts that belong together are one `Replicate`: it is tested on all of them, each image
once, by the network that had not seen its patient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lungdet.evaluation.gathering.results import EvaluationError, Result, Skipped
from lungdet.runs.folder import Run

ALONE, FOLDS, SOURCES = "alone", "folds", "sources"


class Part(NamedTuple):
    """A test part: `kind` of the above, the `family` of parts that belong together, and the part's own `name`."""

    kind: str
    family: str
    name: str


@dataclass(frozen=True)
class Replicate:
    """A model under one seed: one run, or one for each fold or held-out source, by the name of its part."""

    parts: Mapping[str, Result]

    @property
    def results(self) -> list[Result]:
        """Its runs."""
        return list(self.parts.values())

    @property
    def first(self) -> Result:
        """A run of it, for what they all share."""
        return self.results[0]

    @property
    def places(self) -> list[Path]:
        """Where its predictions lie, part by part: its runs' folders."""
        return [result.run.folder for result in self.results]

    @property
    def tables(self) -> list[pd.DataFrame]:
        """Its test predictions, part by part."""
        return [result.test for result in self.results]

    @property
    def seed(self) -> int:
        """The seed of weights, order and augmentation."""
        return self.first.seed

    @property
    def labels(self) -> tuple[str, ...]:
        """What it predicts."""
        return self.first.labels

    @cached_property
    def test(self) -> pd.DataFrame:
        """The test predictions of all parts, each image once, sorted by `image_id`."""
        return pd.concat(self.tables).sort_values("image_id", ignore_index=True)

    @cached_property
    def shortcuts(self) -> pd.DataFrame | None:
        """The shortcuts that every part has, over all parts; None where a run did not record them."""
        tables = [result.shortcuts for result in self.results]
        if any(table is None for table in tables):
            return None
        everywhere = set.intersection(*[set(table["shortcut"]) for table in tables])
        pooled = pd.concat(tables, ignore_index=True)
        return pooled[pooled["shortcut"].isin(everywhere)]

    def patients_known(self, other_data: bool) -> bool:
        """Whether anything says which images are of one patient: the run's data, or of other data its predictions.

        A table without patients names each image as its own.
        """
        if not other_data:
            return self.first.run.data["patients_known"]
        return not (self.test["patient_id"] == self.test["image_id"]).all()


def part_of(run: Run) -> Part:
    """The test part of a run, by what it recorded of its split."""
    split = run.environment["split"]
    if split["protocol"] == "folds":
        return Part(FOLDS, f"{split['of']} folds, seed {split['seed']}", f"fold {split['fold']}")
    if split["protocol"] == "leave_one_source_out":
        return Part(SOURCES, f"one source held out, seed {split['seed']}", split["held_out"])
    return Part(ALONE, "", "test")


def expected(results: Sequence[Result]) -> list[str]:
    """The parts that a whole test has: every fold, or every source that the runs know of."""
    part = part_of(results[0].run)
    if part.kind == FOLDS:
        return [f"fold {fold}" for fold in range(results[0].run.environment["split"]["of"])]
    if part.kind == SOURCES:
        return sorted(set().union(*[result.run.data["sources"] for result in results]))
    return [part.name]


def common(models: Mapping[str, Sequence[Replicate]]) -> tuple[dict[str, list[Replicate]], list[Skipped]]:
    """The models on the parts that every one has under every seed, and the runs on other parts with the reason.

    Raises:
        EvaluationError: no part is common to all.
    """
    replicates = [(f"{name}, seed {replicate.seed}", replicate) for name, runs in models.items() for replicate in runs]
    shared = set.intersection(*[set(replicate.parts) for _, replicate in replicates])
    if not shared:
        listing = "\n".join(f"  {name}: {', '.join(replicate.parts)}" for name, replicate in replicates)
        raise EvaluationError(
            f"no fold or held-out source was run by every model under every seed; there are\n{listing}"
        )
    order = dict.fromkeys(
        [*expected([result for _, replicate in replicates for result in replicate.results]), *sorted(shared)]
    )
    complete, left_out = {}, []
    for name, runs in models.items():
        complete[name] = [
            Replicate({part: replicate.parts[part] for part in order if part in shared}) for replicate in runs
        ]
        for replicate in runs:
            for part in replicate.parts.keys() - shared:
                lacking = next(name for name, partner in replicates if part not in partner.parts)
                reason = f"{part} is left out: it was not run, or not finished, by {lacking}"
                left_out.append(Skipped(replicate.parts[part].run.folder, reason))
    return complete, sorted(left_out, key=lambda skipped: skipped.folder)
