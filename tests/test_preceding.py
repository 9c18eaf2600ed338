"""What a multirun starts from is trained once before its first job, and the jobs do not start without it."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

PROGRAM = """
from pathlib import Path
import hydra
from lungdet import preceding

preceding.TRAIN = Path(__file__).with_name("first.py")

@hydra.main(version_base="1.3", config_path=None, config_name=None)
def main(config):
    print("job", config.job, flush=True)

main()
"""
FIRST = """
import json, sys
from pathlib import Path
print("first with", *sys.argv[1:], flush=True)
if {status}:
    sys.exit({status})
folder = Path("base")
folder.mkdir(exist_ok=True)
(folder / "environment.json").write_text(json.dumps({{"finished": "now"}}))
"""


def said(folder: Path, *words: str, status: int = 0, base: str = "base", python: Sequence[str] = ()) -> tuple[int, str]:
    """Exit status and output of a program whose jobs start from the run `base`."""
    (folder / "train.py").write_text(PROGRAM)
    (folder / "first.py").write_text(FIRST.format(status=status))
    callback = f"{{_target_: lungdet.preceding.Preceding, folder: {base}, overrides: ['model=cnn']}}"
    first = f"+hydra.callbacks={{first: {callback}}}"
    command = [sys.executable, *python, "train.py", *words, first, "hydra.sweep.dir=now", "hydra.run.dir=now"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


@pytest.mark.parametrize(("words", "jobs"), [(["-m", "+job=a,b"], 2), (["+job=a"], 1)])
def test_it_is_trained_once_before_the_first_job_and_not_again(tmp_path: Path, words: list[str], jobs: int) -> None:
    status, output = said(tmp_path, *words)
    assert status == 0
    assert output.count("first with") == 1
    assert "hydra.mode=RUN hydra.run.dir=base model=cnn" in output
    assert output.index("first with") < output.index("job a")
    assert output.count("job ") >= jobs
    assert "first with" not in said(tmp_path, *words)[1]


def test_one_that_was_cut_is_continued(tmp_path: Path) -> None:
    (tmp_path / "base" / "checkpoints").mkdir(parents=True)
    (tmp_path / "base" / "checkpoints" / "last.ckpt").touch()
    assert "first with hydra.mode=RUN resume=base\n" in said(tmp_path, "-m", "+job=a")[1]


def test_without_it_no_job_starts(tmp_path: Path) -> None:
    status, output = said(tmp_path, "-m", "+job=a", status=3)
    assert status != 0
    assert "base was not trained and the others start from it" in output
    assert "job a" not in output


@pytest.mark.parametrize("status", [0, 3])
def test_of_two_processes_the_first_trains_it_and_none_goes_on_without_it(tmp_path: Path, status: int) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ended, output = said(tmp_path, "+job=a", status=status, python=torchrun)
    assert output.count("first with") == 1
    assert output.count("job a") == (0 if status else 2)
    assert (ended != 0) == bool(status)
    assert ("base was not trained" in output) == bool(status)


def test_where_nothing_is_started_from_nothing_is_trained(tmp_path: Path) -> None:
    status, output = said(tmp_path, "-m", "+job=a", base="null")
    assert status == 0
    assert "first with" not in output
