"""`lungdet.load(RUN)`: from run folders to one model."""

from collections.abc import Sequence
from pathlib import Path

from lungdet.data.reference import Reference
from lungdet.data.store.images import Settings
from lungdet.errors import InputError, RunError
from lungdet.findings import TASKS
from lungdet.inference.cuts import cuts, temperatures, validation
from lungdet.inference.model import Model
from lungdet.machine.commands import command, override
from lungdet.runs.folder import Run, load_run
from lungdet.runs.network import network
from lungdet.runs.preparation import preparation


def load(
    runs: str | Path | Sequence[str | Path],
    *,
    bits: int | None = None,
    threshold: float | None = None,
    trust: Sequence[str] = (),
) -> Model:
    """A finished run that predicts new radiographs, or several whose probabilities are averaged.

    Args:
        runs: a run folder, or a list of them.
        bits: the depth of new 16-bit files; None is that of the run's own.
        threshold: a probability above which the decision is 1; None takes the thresholds of the run.
        trust: packages beyond lungdet whose classes a run may name.

    Raises:
        RunError: a folder holds no finished run, or several predict or read different things.
        InputError: see `lungdet.instantiation.instantiate`; or a value that makes no sense.
    """
    folders = [runs] if isinstance(runs, str | Path) else [*runs]
    members = tuple(load_run(Path(folder).expanduser()) for folder in folders)
    if not members:
        raise InputError("run=[]: name at least one run")
    for run in members:
        if not run.finished:
            anew = command("train.py", override("resume", run.folder))
            raise RunError(f"{run.folder}: the run is not finished; finish it with: {anew}")
        run.require_configured()
    resolved = [run.folder.resolve() for run in members]
    if repeated := [folder for folder in resolved if resolved.count(folder) > 1]:
        raise RunError(f"{repeated[0]}: named twice, so that it would count twice; name each run once")
    labels = TASKS[_shared(members, "task", [run.config.task for run in members])]
    settings, val = _settings(members, bits), validation(members, labels)
    references = tuple(Reference.read(run.folder) for run in members)
    return Model(
        runs=members,
        labels=labels,
        settings=settings,
        thresholds=cuts(members, labels, val, threshold),
        networks=tuple(network(run, trust) for run in members),
        temperature=temperatures(labels, val),
        references=() if None in references else references,
        hashes={
            str(run.folder): {"data": run.data["fingerprint"], "split": run.environment["split"]["hash"]}
            for run in members
        },
    )


def _settings(runs: Sequence[Run], bits: int | None) -> Settings:
    prepared = [preparation(run) for run in runs]
    size, resize = (_shared(runs, f"data.{key}", [own[key] for own in prepared]) for key in ("image_size", "resize"))
    if bits is None:
        bits = _shared(runs, "data.bits", [own["bits"] for own in prepared])
    return Settings(size=size, resize=resize, bits=bits)


def _shared(runs: Sequence[Run], key: str, values: Sequence[object]) -> object:
    """The value that all runs have.

    Raises:
        RunError: they differ.
    """
    for run, value in zip(runs, values, strict=True):
        if value != values[0]:
            raise RunError(
                f"{runs[0].folder} has {key}={values[0]} and {run.folder} {key}={value}; runs are averaged that "
                "predict the same of images prepared alike. Predict with each by itself"
            )
    return values[0]
