"""An interrupted run ends at once, as shells expect of a signal, and says how it goes on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import train
from lungdet.models.classifier import Classifier
from lungdet.training.recording import Record
from tests.calling import CHECKOUT, call

# One run, interrupted by a signal to itself.
INTERRUPTED = """
import logging, os, pathlib, signal, sys
from lungdet.runs.folder import Run
from lungdet.training import interruption
logging.basicConfig(format="%(message)s")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job hands it on ignored
with interruption.advice(Run(pathlib.Path(sys.argv[1]))):
    {before}
    os.kill(os.getpid(), int(sys.argv[2]))
    print("went on")
"""
IN_A_CHILD = """if child := os.fork():
        print(os.waitpid(child, 0)[1], flush=True)
        os._exit(0)"""
THEIRS = "signal.signal(int(sys.argv[2]), lambda *_: None)"


def interrupted(folder: Path, number: int, before: str = "pass") -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", INTERRUPTED.format(before=before), str(folder), str(number)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=1800)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_how_it_goes_on(tmp_path: Path, number: int, status: int) -> None:
    early = interrupted(tmp_path, number)
    assert (early.returncode, early.stdout) == (status, "")
    assert early.stderr == "interrupted before the first epoch was whole; start it anew\n"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    later = interrupted(tmp_path, number)
    assert (later.returncode, later.stdout) == (status, "")
    assert later.stderr.endswith(f"it goes on with: python train.py resume={tmp_path}\n")


def test_a_signal_that_somebody_else_answers_is_left_to_them(tmp_path: Path) -> None:
    done = interrupted(tmp_path, signal.SIGTERM, THEIRS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_a_forked_process_ends_by_the_signal_and_says_nothing(tmp_path: Path) -> None:
    done = interrupted(tmp_path, signal.SIGTERM, IN_A_CHILD)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{int(signal.SIGTERM)}\n", "")


@pytest.mark.parametrize(
    ("kind", "method"),
    [(Record, "_write"), (Classifier, "on_predict_epoch_end")],
    ids=["training", "predicting"],
)
def test_sigterm_ends_a_multirun_with_its_own_status_in_the_first_job(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type, method: str
) -> None:
    monkeypatch.setattr(kind, method, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    small = ("data=table", f"data.table={table}", "data.image_size=32", "data.num_workers=0", "trainer.max_epochs=1")
    done = call(train, "-m", *small, "logger=csv", "model=cnn,length_only", f"outputs={tmp_path}", "sweep.name=two")
    assert done.returncode == 143, done.stderr
    [folder] = {path.parent for path in tmp_path.glob("sweeps/two/*/config.yaml")}
    assert "interrupted" in done.stdout
    if kind is Classifier:
        assert f"it goes on with: python train.py resume={folder}" in done.stdout
