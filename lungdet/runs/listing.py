"""What the runs in a folder have come to: `lungdet runs FOLDER`, while they run or afterwards."""

import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lungdet.errors import RunError
from lungdet.machine.commands import command
from lungdet.runs.folder import Run, find_runs
from lungdet.runs.locking import in_use
from lungdet.runs.multirun import Job, never_run

VALIDATION = {f"val/{name}": f"val {name}" for name in ("loss", "accuracy", "f1", "auroc")}
"""Of columns of metrics.csv the heading."""
STYLES = {"finished": "green", "running": "cyan", "cut": "yellow", "no epoch": "red", "not begun": "dim"}


def show(folder: Path) -> None:
    """Print a line for each run in and below a folder, and how to go on.

    Raises:
        RunError: no such folder.
    """
    runs = find_runs(folder)
    missing = [job for plan in sorted(folder.rglob("multirun.yaml")) for job in never_run(plan.parent)]
    lines, refusals = {}, []
    for run in runs:
        try:
            lines[run] = line(run, folder)
        except RunError as error:
            refusals.append(error)
    rows = [*varying(lines), *(_not_begun(job, folder) for job in missing)]
    if rows:
        Console(width=None if sys.stdout.isatty() else 200).print(table(rows))
    elif not refusals:
        print(f"{folder}: no run")
    for refusal in refusals:
        print(f"Not listed: {refusal}")
    if any(row["state"] == "cut" for row in rows):
        goes_on = command("train.py", "resume=RUN")
        print(f"A run that was cut goes on with: {goes_on}; a multirun with a name, as it was started.")
    if any(row["state"] == "no epoch" for row in rows):
        print("Why a run has no epoch stands in its train.log, or in the terminal that it was started in.")


def state(run: Run) -> str:
    """`finished`; `running`; `cut`, with a checkpoint to go on from; or `no epoch`, cut or failed before the first."""
    if run.finished:
        return "finished"
    return "running" if in_use(run) else "cut" if run.can_continue else "no epoch"


def line(run: Run, folder: Path) -> dict[str, str]:
    """State, epochs, what validation gave in the best of them, and the time that all took.

    The test part is evaluate.py's: in a list of runs it would choose among them.
    """
    epochs, validation = run.epochs, dict.fromkeys(VALIDATION.values(), "")
    if epochs["val/loss"].notna().any():
        best = epochs.loc[epochs["val/loss"].idxmin()]
        validation = {heading: f"{best[column]:.3f}" for column, heading in VALIDATION.items()}
    return {
        "run": str(run.folder.relative_to(folder)) if run.folder != folder else run.name,
        "state": state(run),
        "epochs": f"{len(epochs)} of {run.config.trainer.max_epochs}",
        **validation,
        "time": str(timedelta(seconds=round(epochs["seconds"].sum()))) if len(epochs) else "",
        "left": remaining(run),
    }


def remaining(run: Run) -> str:
    """How long a run that trains takes to its last epoch, at the pace so far; early stopping may end it before."""
    seconds, last = run.epochs["seconds"], run.config.trainer.max_epochs
    if state(run) != "running" or not len(seconds) or last < len(seconds):
        return ""
    return str(timedelta(seconds=round(seconds.median() * (last - len(seconds)))))


def varying(lines: Mapping[Run, dict[str, str]]) -> list[dict[str, str]]:
    """The lines, each with what its run's command line said that not every run's did."""
    commands = [[word.lstrip("+") for word in run.environment.get("overrides", [])] for run in lines]
    common = set.intersection(*map(set, commands)) if commands else set()
    return [
        row | {"with": " ".join(word for word in words if word not in common)}
        for row, words in zip(lines.values(), commands, strict=True)
    ]


def table(lines: list[dict[str, str]]) -> Table:
    """The lines as a table, words on the left and numbers on the right, without columns in which nothing stands."""
    grid = Table(box=None, pad_edge=False)
    columns = [name for name in lines[0] if any(row[name] for row in lines)]
    for name in columns:
        justify = "left" if name in ("run", "state", "with") else "right"
        grid.add_column(name.replace(" ", "\n"), justify=justify, overflow="fold")  # a folded name can't be copied
    for row in lines:
        grid.add_row(*[Text(row[name]) for name in columns], style=STYLES[row["state"]])
    return grid


def _not_begun(job: Job, folder: Path) -> dict[str, str]:
    place = "" if job.multirun == folder else str(job.multirun.relative_to(folder))
    empty = dict.fromkeys(("epochs", *VALIDATION.values(), "time", "left"), "")
    return {"run": place, "state": "not begun", **empty, "with": " ".join(job.overrides)}
