"""Checkpoints are written whole or not at all, and once where the best epoch is the last."""

import os
import resource
import tempfile
from pathlib import Path

import pytest
import torch

from lungdet.errors import InputError
from lungdet.machine import hardware
from lungdet.runs import starting
from lungdet.training import fitting
from lungdet.training.checkpoints import Checkpoints
from lungdet.training.trainer import build_trainer
from tests.small_runs import configured


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(table: Path, tmp_path: Path, monkeypatch) -> None:
    config = configured(tmp_path, table)
    with starting.start(config) as run:
        trainer = build_trainer(run, fitting.build_model(run), hardware.choose("32-true", "auto"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))  # TMPDIR is not needed
    save, path = trainer.strategy.checkpoint_io.save_checkpoint, run.folder / "checkpoints" / "last.ckpt"
    save({"epoch": 1}, path)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, unlimited[1]))  # as a disk that is full
    try:
        with pytest.raises(InputError, match=r"last.ckpt could not be written \(File too large\).*resume="):
            save({"epoch": 2, "weights": torch.zeros(10_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert torch.load(run.checkpoint("last"), weights_only=True) == {"epoch": 1}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_best_epoch_that_is_the_last_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints, best, last = Checkpoints(), tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    for epoch, paths, once in ((0, (best, last), True), (1, (last,), False), (2, (best, last), True)):
        before = best.read_bytes() if epoch == 1 else None
        for path in paths:
            checkpoints.save_checkpoint({"epoch": epoch, "global_step": 7}, path)
        assert before in (None, best.read_bytes())
        assert torch.load(last, weights_only=True)["epoch"] == epoch
        assert best.samefile(last) is once
    monkeypatch.setattr(os, "link", lambda *_: exec("raise OSError"))  # a disk that has no second names
    for path in (best, last):
        checkpoints.save_checkpoint({"epoch": 3, "global_step": 8}, path)
    assert best.read_bytes() == last.read_bytes()
    assert not best.samefile(last)
    assert {path.name for path in tmp_path.iterdir()} == {"best.ckpt", "last.ckpt"}
