"""Results: the runs that are to be evaluated, with their predictions read and checked."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lungdet.errors import InputError
from lungdet.runs import Run, RunError, find_runs, load_run

A_RUN = "a run is a folder that train.py wrote, with config.yaml, environment.json and predictions/ in it"
NEEDED = ("image_id", "patient_id", "dataset", "target_abnormal", "probability_abnormal")


class EvaluationError(InputError):
    """Runs that cannot be evaluated or may not be compared; the message names them and says what to do."""


@dataclass(frozen=True)
class Result:
    """A run with its predictions, checked: one row an image, sorted by `image_id`."""

    run: Run
    test: pd.DataFrame
    val: pd.DataFrame

    @property
    def seed(self) -> int:
        """The seed of weights, order and augmentation."""
        return int(self.run.config.seed)

    @property
    def test_hash(self) -> str:
        """The hash of the images that the run was tested on."""
        return self.run.environment["split"]["parts"]["test"]["hash"]


@dataclass(frozen=True)
class Skipped:
    """A run that was found and could not be evaluated."""

    folder: Path
    reason: str


def collect(folders: Sequence[str | Path]) -> tuple[list[Result], list[Skipped]]:
    """The runs in `folders`, each a run or a folder with runs somewhere in it.

    A run that is named itself has to be whole. One that was found in a folder and is not (it failed, or still
    trains) is returned among the skipped, with the reason.

    Raises:
        EvaluationError: a folder does not exist or holds no run, or no run could be evaluated.
        RunError: a run that was named has no predictions.
    """
    folders = [Path(folder) for folder in folders]
    results: dict[Path, Result] = {}
    skipped: dict[Path, Skipped] = {}
    for folder in folders:
        if not folder.is_dir():
            raise EvaluationError(f"{folder}: no such folder; {A_RUN}")
        if (folder / "config.yaml").exists():
            results.setdefault(folder.resolve(), read(load_run(folder)))
            continue
        runs = find_runs(folder)
        for run in runs:
            try:
                results.setdefault(run.folder.resolve(), read(run))
            except (RunError, EvaluationError) as error:
                skipped.setdefault(run.folder.resolve(), Skipped(run.folder, str(error)))
        if not runs:
            raise EvaluationError(f"{folder}: no run in it; {A_RUN}")
    if not results:
        reasons = "\n".join(f"  {one.folder}: {one.reason}" for one in skipped.values())
        raise EvaluationError(f"no run can be evaluated:\n{reasons}")
    return list(results.values()), list(skipped.values())


def read(run: Run) -> Result:
    """A run with its validation and test predictions, checked.

    Raises:
        RunError: it has not written them.
        EvaluationError: they are damaged, or nothing records which split the run was tested on.
    """
    tables = {}
    for part in ("test", "val"):
        try:
            tables[part] = check(run.predictions(part), run.folder, part)
        except (RunError, EvaluationError):
            raise
        except (OSError, ValueError) as error:
            raise EvaluationError(f"{run.folder}/predictions/{part}.parquet cannot be read: {error}") from error
    split = run.environment.get("split", {})
    if "hash" not in split or "hash" not in split.get("parts", {}).get("test", {}):
        raise EvaluationError(
            f"{run.folder}/environment.json records no split, so the test part is unknown: train anew"
        )
    return Result(run, **tables)


def check(table: pd.DataFrame, run: Path, part: str) -> pd.DataFrame:
    """Predictions sorted by image, if each image stands once and has a probability.

    Raises:
        EvaluationError: columns are missing, there is no row, an image stands twice, or a probability is NaN or
            outside [0, 1].
    """
    where = f"run {run}, {part} predictions"
    missing = [column for column in NEEDED if column not in table.columns]
    if missing:
        raise EvaluationError(f"{where}: no column {', '.join(missing)}; written by another program or version?")
    if table.empty:
        raise EvaluationError(f"{where}: no image in the table")
    twice = table.image_id[table.image_id.duplicated()]
    if len(twice):
        raise EvaluationError(
            f"{where}: {len(twice)} image(s) stand there more than once, the first is {twice.iloc[0]}"
        )
    # NaN compares false, so it is caught here as well.
    wrong = ~table.probability_abnormal.between(0, 1)
    if wrong.any():
        raise EvaluationError(
            f"{where}: probability_abnormal is NaN or outside [0, 1] on {int(wrong.sum())} of {len(table)} images, the "
            f"first is {table.image_id[wrong].iloc[0]}. The training diverged: lower model.learning_rate, or set "
            "trainer.gradient_clip_val=1.0"
        )
    return table.sort_values("image_id", ignore_index=True)


def common_parent(folders: Sequence[Path]) -> Path:
    """The innermost folder that holds them all; of a single one, itself."""
    return Path(os.path.commonpath([folder.resolve() for folder in folders]))
