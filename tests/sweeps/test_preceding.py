"""What a multirun starts from is trained once before its first job, and the jobs do not start without it."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from lungdet.machine.commands import override

BASE = "a base=1 [2] ü $x 'q'"
PROGRAM = """
import os
from pathlib import Path
import hydra
from lungdet.sweeps import preceding

preceding.TRAIN = Path(__file__).with_name("first.py")

@hydra.main(version_base="1.3", config_path=None, config_name=None)
def main(config):
    Path("jobs", f"{config.job} {os.getpid()}").touch()

main()
"""
FIRST = """
import json, os, sys
from pathlib import Path
assert not os.listdir("jobs"), "a job came first"
Path("first", str(os.getpid())).write_text("\\n".join(sys.argv[1:]))
if {status}:
    sys.exit({status})
folder = Path({base!r})
folder.mkdir(exist_ok=True)
(folder / "environment.json").write_text(json.dumps({{"finished": "now"}}))
"""


def started(
    folder: Path, *words: str, status: int = 0, base: str = BASE, python: Sequence[str] = ()
) -> tuple[int, str]:
    """Exit status and errors of a program whose jobs start from the run `base`; each process leaves a file of its own.

    Training the run `base` ends with `status`.
    """
    (folder / "train.py").write_text(PROGRAM)
    (folder / "first.py").write_text(FIRST.format(status=status, base=base))
    for name in ("jobs", "first"):
        (folder / name).mkdir(exist_ok=True)
    callback = "{_target_: lungdet.sweeps.preceding.Preceding, folder: ${base}, overrides: {model: cnn, data.size: 64}}"
    first = [f"+hydra.callbacks={{first: {callback}}}", override("+base", base) if base else "+base=null"]
    command = [sys.executable, *python, "train.py", *words, *first, "hydra.sweep.dir=now", "hydra.run.dir=now"]
    done = subprocess.run(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stderr


def jobs(folder: Path) -> list[str]:
    return sorted(job.name.split()[0] for job in (folder / "jobs").iterdir())


def trained_with(folder: Path) -> list[list[str]]:
    """The words that each process was given that trained the run."""
    return [one.read_text().split("\n") for one in (folder / "first").iterdir()]


@pytest.mark.parametrize(("words", "names"), [(["-m", "+job=a,b"], ["a", "b"]), (["+job=a"], ["a"])])
def test_it_is_trained_once_before_the_first_job_and_not_again(
    tmp_path: Path, words: list[str], names: list[str]
) -> None:
    status, errors = started(tmp_path, *words)
    assert status == 0, errors
    expected = ["hydra.mode=RUN", override("hydra.run.dir", BASE), "model=cnn", "data.size=64"]
    assert trained_with(tmp_path) == [expected]
    assert jobs(tmp_path) == names
    for job in (tmp_path / "jobs").iterdir():
        job.unlink()
    assert started(tmp_path, *words)[0] == 0
    assert jobs(tmp_path) == names
    assert len(trained_with(tmp_path)) == 1


def test_a_run_that_was_cut_is_continued(tmp_path: Path) -> None:
    (tmp_path / BASE / "checkpoints").mkdir(parents=True)
    (tmp_path / BASE / "checkpoints" / "last.ckpt").touch()
    started(tmp_path, "-m", "+job=a")
    assert trained_with(tmp_path) == [["hydra.mode=RUN", override("resume", BASE)]]


def test_without_it_no_job_starts(tmp_path: Path) -> None:
    status, errors = started(tmp_path, "-m", "+job=a", status=3)
    assert status != 0
    assert f"{BASE} was not trained and the others start from it" in errors
    assert jobs(tmp_path) == []


@pytest.mark.parametrize("status", [0, 3])
def test_of_two_processes_the_first_trains_it_and_none_goes_on_without_it(tmp_path: Path, status: int) -> None:
    # What each of them says has a file of its own: in one pipe their lines would mix.
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--redirects=3", "--log-dir=log"]
    ended, _ = started(tmp_path, "+job=a", status=status, python=torchrun)
    assert len(trained_with(tmp_path)) == 1
    assert jobs(tmp_path) == ([] if status else ["a", "a"])
    assert (ended != 0) == bool(status)
    [errors] = tmp_path.glob("log/*/attempt_0/0/stderr.log")
    assert ("was not trained" in errors.read_text()) == bool(status)


def test_where_nothing_is_started_from_nothing_is_trained(tmp_path: Path) -> None:
    status, errors = started(tmp_path, "-m", "+job=a", base="")
    assert status == 0, errors
    assert trained_with(tmp_path) == []
