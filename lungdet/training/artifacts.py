"""A run's files as artifacts, which link runs: a split goes in, predictions and weights come out, a report is of both.

An artifact of patients names its file and what that holds by its hash, and leaves the file where it is, unless
`logger.log_patients` lets it go to the server: the links are the same.
"""

import re
from pathlib import Path
from typing import Any

from lungdet.runs.folder import Run


def identifier(run: Run) -> str:
    """What tells a run from all others at Weights & Biases: when it started, and its name."""
    return identified(run.environment["started"], run.name)


def identified(moment: str, name: str) -> str:
    """What tells something of this name that began at a moment from all others."""
    return re.sub(r"\W+", "-", f"{moment}-{name}")[:128]


def split(run: Run, whole: bool) -> Any:
    """Who is in which part; one artifact for all runs of a split."""
    facts = run.environment["split"]
    metadata = {key: facts[key] for key in ("name", "hash")}
    return _artifact(f"split-{facts['hash']}", "split", [run.folder / "split.csv"], metadata, whole)


def predictions(run: Run, whole: bool) -> Any:
    """What the run predicted of its parts."""
    split = run.environment["split"]
    metadata = {"split": split["hash"], "part": split["parts"]["test"]["hash"]}
    files = [run.folder / "predictions" / f"{part}.parquet" for part in ("val", "test")]
    return _artifact(f"predictions-{identifier(run)}", "predictions", files, metadata, whole)


def weights(run: Run) -> Any:
    """The best epoch's checkpoint."""
    facts, epochs = run.environment, run.epochs.set_index("epoch")
    best = facts["best_epoch"]
    metadata = {"epoch": best, "val/loss": float(epochs.loc[best, "val/loss"]), "split": facts["split"]["hash"]}
    return _artifact(f"model-{identifier(run)}", "model", [run.checkpoint("best")], metadata, True)


def report(name: str, folder: Path, whole: bool) -> Any:
    """A report's numbers and, where the page with its radiographs may go to the server, all of it."""
    files = [folder / "metrics.json", *([folder / "report.html", folder / "report.md"] if whole else [])]
    return _artifact(f"report-{name}", "report", files, {}, True)


def use(started: Any, artifact: Any) -> None:
    """Let a run have made use of an artifact, which is the one that another has logged if their files are the same.

    `Run.use_artifact` refuses to offline, and else waits for the server; what it calls does neither.
    """
    started._log_artifact(artifact, use_after_commit=True)


def _artifact(name: str, kind: str, files: list[Path], metadata: dict[str, Any], whole: bool) -> Any:
    import wandb

    artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", name)[:128], kind, metadata=metadata)
    for file in files:
        if whole:
            artifact.add_file(str(file), name=file.name, policy="immutable")  # not copied first
        else:
            artifact.add_reference(file.absolute().as_uri(), name=file.name)
    return artifact
