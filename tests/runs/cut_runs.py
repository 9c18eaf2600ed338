"""Runs that were cut, as they lie on the disk, and commands that go on with them or are refused."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from lungdet.errors import InputError
from lungdet.runs import starting
from lungdet.runs.folder import Run


def config(folder: Path, **changes) -> DictConfig:
    values = {
        "model": {"_target_": "lungdet.models.cnn.CNN", "hidden": 8, "seed": "${seed}"},
        "data": {"root": "here"},
        "optimizer": {"_target_": "torch.optim.Adam"},
        "schedule": {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"},
        "trainer": {"max_epochs": 3, "early_stopping": 8},
        "logger": {"project": None},
        "seed": 0,
        "resume": None,
        "outputs": str(folder),
        "run_dir": str(folder / "runs" / "new"),
    }
    return OmegaConf.create(values | changes)


def cut_run(
    folder: Path, name: str, started: str = "2026-01-01T00:00:00+00:00", epochs: int = 2, stalled: int = 0, **changes
) -> Run:
    """A run that was stopped after its first epochs, of which the last `stalled` brought no lower loss."""
    with starting.start(config(folder, run_dir=str(folder / "runs" / name), **changes)) as run:
        reach(run, epochs, stalled)
        run.record(started=started)
    return run


def reach(run: Run, epochs: int, stalled: int = 0) -> None:
    """Leave what is read of a run that has come so far."""
    (run.folder / "checkpoints").mkdir(exist_ok=True)
    callbacks = {"ModelCheckpoint": {}, "EarlyStopping": {"wait_count": stalled, "patience": 8}}
    torch.save({"epoch": epochs - 1, "callbacks": callbacks}, run.folder / "checkpoints" / "last.ckpt")
    validation = {f"val/{name}": 0.5 for name in ("loss", "accuracy", "f1", "auroc")}
    pd.DataFrame({"epoch": range(epochs), **validation, "seconds": 60.0}).to_csv(
        run.folder / "metrics.csv", index=False
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def resumed(run: Run, *words: str) -> DictConfig:
    """What Hydra composes of `resume=RUN` and these words."""
    composed = config(run.folder.parents[1], resume=str(run.folder), logger={"project": "lungdet", "tags": []})
    plain = [word.lstrip("+") for word in words if word[0] != "~" and "." in word.split("=")[0]]
    return OmegaConf.merge(composed, OmegaConf.from_dotlist(plain))


def refused(asked: DictConfig, message: str, *words: str) -> None:
    """A start that ends with this message, and leaves all outputs as they were."""
    before = files(Path(asked.outputs))
    with pytest.raises(InputError, match=message), starting.start(asked, words):
        pass
    assert files(Path(asked.outputs)) == before
