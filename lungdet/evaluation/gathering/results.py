"""Results: the runs that are to be evaluated, with their predictions read and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lungdet.data.serving.views import ITSELF, View
from lungdet.data.splitting.splits import hash_of
from lungdet.errors import InputError, RunError
from lungdet.findings import TASKS
from lungdet.machine.commands import command, override
from lungdet.runs.folder import Run, find_runs, load_run
from lungdet.runs.learnt import chain, learnt
from lungdet.runs.locking import in_use
from lungdet.runs.predictions import check, require_log_odds

A_RUN = "a run is a folder that train.py wrote, with config.yaml, environment.json and predictions/ in it"

RECORDED = ("data", "git", "hardware", "precision", "started")
"""What a run's environment.json says beside its split, and a report tells."""


class EvaluationError(InputError):
    """Runs that cannot be evaluated or may not be compared; the message names them and says what to do."""


class UnusableRunError(EvaluationError):
    """A run that cannot be evaluated, and the reason."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"{folder}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Trial:
    """A run of a search for hyper-parameters: its lowest validation loss, and the values it was given."""

    folder: Path
    loss: float
    values: dict[str, str]


@dataclass(frozen=True)
class Result:
    """A run with its predictions, checked: one row an image, sorted by `image_id`.

    What the run did not record is None: `shortcuts` of the test images, one row an image and shortcut (see
    `lungdet.training.shortcuts`); `train`, a sample of the training images as large as validation; `degraded`, the test
    images made worse, one row an image, `degradation` and `level` (see `lungdet.data.serving.degrade`). `trials` are
    those of the search whose best the run is (see `trials.best`), itself among them. `views` are those of an
    image whose mean its predictions of validation and test are. `judged` are the labels that all is measured on, where
    they are not all that the run predicts.
    """

    run: Run
    test: pd.DataFrame
    val: pd.DataFrame
    shortcuts: pd.DataFrame | None = None
    train: pd.DataFrame | None = None
    degraded: pd.DataFrame | None = None
    trials: tuple[Trial, ...] = ()
    views: tuple[View, ...] = (ITSELF,)
    judged: tuple[str, ...] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What is judged of the run: what it predicted, `abnormal` or every finding, or as many of them as `judged`."""
        return self.judged or TASKS[self.run.config.task]

    @property
    def seed(self) -> int:
        """The seed of weights, order and augmentation."""
        return int(self.run.config.seed)

    @cached_property
    def learnt_from(self) -> set[str]:
        """The sources that the run has images of in training or validation, or a run that it started from."""
        return {*learnt(self.run)["dataset"]}

    @cached_property
    def sheets(self) -> dict[str, dict]:
        """Of each dataset that the run is tested on or has learnt from the data sheet, as a run recorded it."""
        recorded = [origin.data["sources"] for origin in reversed(chain(self.run))]
        recorded.append(self.test.attrs.get("scored", {}).get("sources", {}))
        return {name: facts for sources in recorded for name, facts in sources.items()}

    @property
    def test_hash(self) -> str:
        """The hash of the images that the run was tested on."""
        return self.run.environment["split"]["parts"]["test"]["hash"]


@dataclass(frozen=True)
class Skipped:
    """A run that was found and could not be evaluated here; `elsewhere` is the report that it is in."""

    folder: Path
    reason: str
    elsewhere: str | None = None


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
            except UnusableRunError as error:
                skipped.setdefault(run.folder.resolve(), Skipped(run.folder, error.reason))
            except (RunError, EvaluationError) as error:
                skipped.setdefault(run.folder.resolve(), Skipped(run.folder, str(error)))
        if not runs:
            raise EvaluationError(f"{folder}: no run in it; {A_RUN}")
    if not results:
        reasons = "\n".join(f"  {run.folder}: {run.reason}" for run in skipped.values())
        raise EvaluationError(f"no run can be evaluated:\n{reasons}")
    return list(results.values()), list(skipped.values())


def read(run: Run) -> Result:
    """A run with its validation and test predictions, checked.

    Raises:
        RunError: it has not written them.
        EvaluationError: they are damaged, the run is still trained, or nothing records which split it was tested on.
    """
    try:
        labels, _, environment = TASKS[run.config.task], int(run.config.seed), run.environment
    except RunError:
        raise
    except (ValueError, KeyError, YAMLError, OmegaConfBaseException) as error:
        first_line, _, _ = str(error).partition("\n")
        reason = f"config.yaml or environment.json is damaged ({first_line}); train the run anew"
        raise UnusableRunError(run.folder, reason) from error
    if not run.finished and in_use(run):
        raise UnusableRunError(run.folder, "it is being trained; evaluate it when it has finished")
    parts = (environment.get("split") or {}).get("parts", {})
    if not all("hash" in parts.get(part, {}) for part in ("test", "val")):
        raise UnusableRunError(
            run.folder,
            "its environment.json records no split, so the test part is unknown: it ended before it trained "
            "(train.log may say why); train anew",
        )
    if missing := [fact for fact in RECORDED if fact not in environment]:
        raise UnusableRunError(run.folder, f"its environment.json does not say {', '.join(missing)}; train anew")
    source = f"run {run.folder}"
    tables = {part: check(_table(run, part), labels, f"{source}, {part} predictions") for part in ("test", "val")}
    for part, table in tables.items():
        _require_recorded(table, parts[part]["hash"], run.folder, part)
    leaked = set(tables["test"]["patient_id"]) & set(tables["val"]["patient_id"])
    if leaked:
        raise UnusableRunError(
            run.folder,
            f"{len(leaked)} patient(s) stand in the predictions of validation and of test, the first is {min(leaked)}: "
            "thresholds would be chosen on patients that are tested",
        )
    train = _optional(run, "train")
    return Result(
        run,
        **tables,
        shortcuts=_of_test_images(run, "shortcuts_test", ["shortcut"], tables["test"], labels),
        train=None if train is None else check(train, labels, f"{source}, train predictions"),
        degraded=_of_test_images(run, "degraded_test", ["degradation", "level"], tables["test"], labels),
    )


def renewed(result: Result, tables: Mapping[str, pd.DataFrame], views: tuple[View, ...], external: bool) -> Result:
    """The run with other predictions in the place of its own: of several views of each image, or of other data.

    What it recorded of its images as they are is no match for those of several views, nor are shortcuts of its own
    test images for those of other data: they are None then.

    Args:
        result: the run.
        tables: the new predictions, by part.
        views: of an image, whose mean they are.
        external: whether those of test are of other data.

    Raises:
        RunError: see `predictions.check`.
    """
    source = f"run {result.run.folder}"
    checked = {part: check(table, result.labels, f"{source}, {part} predictions") for part, table in tables.items()}
    if len(views) > 1:
        result = replace(result, train=None, degraded=None)
    if external:
        result = replace(result, shortcuts=None)
    return replace(result, views=views, **checked)


def narrowed(result: Result, labels: Sequence[str] | None) -> Result:
    """The run judged on these labels alone, None being all.

    Raises:
        EvaluationError: it does not predict one of them.
    """
    if labels is None:
        return result
    if strange := [label for label in labels if label not in result.labels]:
        raise EvaluationError(f"labels: {strange[0]}: {result.run.folder} predicts {', '.join(result.labels)}")
    return replace(result, judged=tuple(label for label in result.labels if label in labels))


def _table(run: Run, part: str) -> pd.DataFrame:
    try:
        return run.predictions(part)
    except RunError:
        raise
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{run.folder}/predictions/{part}.parquet cannot be read: {error}") from error


def _require_recorded(table: pd.DataFrame, recorded: str, run: Path, part: str) -> None:
    """Only the images of the part that the run's split recorded: all of them, and no others."""
    actual = hash_of(table["image_id"])
    if actual != recorded:
        anew = command("train.py", override("resume", run))
        raise EvaluationError(
            f"{run}/predictions/{part}.parquet: its {len(table)} images (hash {actual}) are not those of the {part} "
            f"part that the run recorded (hash {recorded}); predict anew with: {anew}"
        )


def _optional(run: Run, part: str) -> pd.DataFrame | None:
    try:
        return _table(run, part)
    except RunError:
        return None


def _of_test_images(
    run: Run, name: str, by: list[str], test: pd.DataFrame, labels: Sequence[str]
) -> pd.DataFrame | None:
    """Predictions of the test images by something else, with what the images' rows say; None where not recorded."""
    table = _optional(run, name)
    if table is None:
        return None
    source = f"{run.folder}/predictions/{name}.parquet"
    require_log_odds(table, labels, source, ["image_id", *by])
    described = test.loc[:, ~test.columns.str.startswith(("logit_", "probability_"))]
    for key, rows in table.groupby(by):
        if sorted(rows["image_id"]) != test["image_id"].tolist():
            value = " ".join(str(part) for part in key)
            raise EvaluationError(
                f"{source}: the images of {by[0]} {value} are not those of test.parquet; "
                f"delete that file to evaluate the run without it"
            )
    return table.merge(described, on="image_id", validate="many_to_one")
