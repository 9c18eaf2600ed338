"""What the runs in a folder have come to: `python -m lungdet.runs FOLDER`, while they run or afterwards."""

import argparse
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from lungdet.errors import plain_errors
from lungdet.evaluation.gathering.results import Skipped
from lungdet.runs.folder import Run, RunError, find_runs
from lungdet.runs.multirun import never_run
from lungdet.runs.starting import in_use

STYLES = {"finished": "green", "running": "cyan", "cut": "yellow", "no epoch": "red", "not begun": "dim"}


def main() -> None:
    """Print a line for each run in and below the folder that the command line names, and how to go on."""
    parser = argparse.ArgumentParser("python -m lungdet.runs", description=__doc__)
    parser.add_argument("folder", type=Path, help="a run, a multirun's folder, or any above them")
    folder = parser.parse_args().folder
    with plain_errors("lungdet.runs"):
        found = find_runs(folder)
    refused = {run: reason for run in found if (reason := _refused(run))}
    listed = [run for run in found if run not in refused]
    lines = [line(run, folder) for run in listed]
    told = table([*varying(listed, lines), *(_not_begun(one, folder) for one in _missing(folder))])
    Console(width=None if sys.stdout.isatty() else 200).print(told)
    for reason in refused.values():
        print(f"Not listed: {reason}")
    if any(one["state"] == "cut" for one in lines):
        print("A run that was cut goes on with: python train.py resume=RUN; a multirun with a name, as it was started.")
    if any(one["state"] == "no epoch" for one in lines):
        print("Why a run has no epoch stands in its train.log, or in the terminal that it was started in.")


def _refused(run: Run) -> str | None:
    """Why a run is not read, if it is not."""
    try:
        run.config, run.environment  # noqa: B018
    except RunError as error:
        return str(error)
    return None


def state(run: Run) -> str:
    """`finished`; `running`; `cut`, with a checkpoint to go on from; or `no epoch`, cut or failed before the first."""
    if run.finished:
        return "finished"
    return "running" if in_use(run) else "cut" if run.can_continue else "no epoch"


def line(run: Run, folder: Path) -> dict[str, str]:
    """State, epochs, what validation gave in the best of them, and the time that all took.

    The test part is evaluate.py's: in a list of runs it would choose among them.
    """
    path = run.folder / "metrics.csv"
    epochs = pd.read_csv(path) if path.is_file() else pd.DataFrame()
    told = dict.fromkeys(("loss", "accuracy", "f1", "auroc"), "")
    if len(epochs) and epochs["val/loss"].notna().any():
        best = epochs.loc[epochs["val/loss"].idxmin()]
        told = {name: f"{best[f'val/{name}']:.3f}" for name in told}
    return {
        "run": str(run.folder.relative_to(folder)) if run.folder != folder else run.name,
        "state": state(run),
        "epochs": f"{len(epochs)} of {run.config.trainer.max_epochs}",
        **{f"val {name}": value for name, value in told.items()},
        "time": str(timedelta(seconds=round(epochs["seconds"].sum()))) if len(epochs) else "",
    }


def varying(runs: Sequence[Run], lines: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The lines, each with what its run's command line said that not every run's did."""
    said = [[one.lstrip("+") for one in run.environment.get("overrides", [])] for run in runs]
    everywhere = set.intersection(*map(set, said)) if said else set()
    return [
        one | {"with": " ".join(word for word in words if word not in everywhere)}
        for one, words in zip(lines, said, strict=True)
    ]


def table(lines: list[dict[str, str]]) -> Table:
    """The lines as a table, words on the left and numbers on the right."""
    told = Table(box=None, pad_edge=False)
    for name in lines[0] if lines else ("no run",):
        told.add_column(name, justify="left" if name in ("run", "state", "with") else "right", overflow="fold")
    for one in lines:
        told.add_row(*one.values(), style=STYLES[one["state"]])
    return told


def _missing(folder: Path) -> list[Skipped]:
    """Jobs of the multiruns in and below the folder that have not begun, or left nothing."""
    return [one for plan in sorted(folder.rglob("multirun.yaml")) for one in never_run(plan.parent)]


def _not_begun(job: Skipped, folder: Path) -> dict[str, str]:
    where = str(job.folder.parent.relative_to(folder))
    nothing = dict.fromkeys(("epochs", "val loss", "val accuracy", "val f1", "val auroc", "time"), "")
    return {"run": "" if where == "." else where, "state": "not begun", **nothing, "with": job.reason.split(": ", 1)[1]}
