"""What a multirun starts from is trained once before its first job, and the jobs do not start without it."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import hydra
import pytest
from omegaconf import DictConfig

from lungdet.configuration.program import run_program
from lungdet.machine.commands import override
from lungdet.sweeps import programs
from tests.calling import CHECKOUT, call, environment

BASE = "a base=1 [2] ü $x 'q'"
FIRST = """
import json, os, sys
from pathlib import Path
assert not os.listdir("jobs"), "a job came first"
before = len(os.listdir("first"))
Path("first", str(os.getpid())).write_text("\\n".join(sys.argv[2:]))
if before < {failures}:
    sys.exit(3)
folder = Path({base!r})
folder.mkdir(exist_ok=True)
(folder / "environment.json").write_text(json.dumps({{"finished": "now"}}))
"""
# What each of the processes does that torchrun would have started: the program below, twice.
TWICE = """
import sys
from pathlib import Path
from lungdet.sweeps import programs
from tests.calling import call
from tests.sweeps import test_preceding

programs.COMMAND = (sys.executable, "first.py")
for _ in range(2):
    done = call(test_preceding, *sys.argv[1:], cwd=Path.cwd())
    print(done.returncode, "was not trained" in done.stderr)
"""


@hydra.main(version_base="1.3", config_path=str(CHECKOUT / "conf"), config_name=None)
def main(config: DictConfig) -> None:
    """The program whose jobs start from the run; each job of each process leaves a file of its own."""
    Path("jobs", f"{config.job} {os.getpid()}").touch()


def start() -> None:
    run_program(main, "train")


def words_of(folder: Path, *words: str, failures: int = 0, base: str = BASE) -> list[str]:
    """The words of a command in a folder whose jobs start from the run `base`, the training of which fails so often."""
    (folder / "first.py").write_text(FIRST.format(failures=failures, base=base))
    for name in ("jobs", "first"):
        (folder / name).mkdir(exist_ok=True)
    callback = "{_target_: lungdet.sweeps.preceding.Preceding, folder: ${base}, overrides: {model: cnn, data.size: 64}}"
    first = [f"+hydra.callbacks={{first: {callback}}}", override("+base", base) if base else "+base=null"]
    return [*words, *first, "hydra.sweep.dir=now", "hydra.run.dir=now"]


@pytest.fixture(autouse=True)
def first_in_place_of_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "COMMAND", (sys.executable, str(tmp_path / "first.py")))


def started(folder: Path, *words: str, **more: object) -> CompletedProcess:
    return call(sys.modules[__name__], *words_of(folder, *words, **more), cwd=folder)


def jobs(folder: Path) -> list[str]:
    return sorted(job.name.split()[0] for job in (folder / "jobs").iterdir())


def trained_with(folder: Path) -> list[list[str]]:
    """The words that each process was given that trained the run."""
    return [process.read_text().split("\n") for process in (folder / "first").iterdir()]


@pytest.mark.parametrize(("words", "names"), [(["-m", "+job=a,b"], ["a", "b"]), (["+job=a"], ["a"])])
def test_it_is_trained_once_before_the_first_job_and_not_again(
    tmp_path: Path, words: list[str], names: list[str]
) -> None:
    done = started(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    expected = ["hydra.mode=RUN", override("hydra.run.dir", BASE), "model=cnn", "data.size=64"]
    assert trained_with(tmp_path) == [expected]
    assert jobs(tmp_path) == names
    for job in (tmp_path / "jobs").iterdir():
        job.unlink()
    assert started(tmp_path, *words).returncode == 0
    assert jobs(tmp_path) == names
    assert len(trained_with(tmp_path)) == 1


def test_a_run_that_was_cut_is_continued(tmp_path: Path) -> None:
    (tmp_path / BASE / "checkpoints").mkdir(parents=True)
    (tmp_path / BASE / "checkpoints" / "last.ckpt").touch()
    started(tmp_path, "-m", "+job=a")
    assert trained_with(tmp_path) == [["hydra.mode=RUN", override("resume", BASE)]]


def test_without_it_no_job_starts(tmp_path: Path) -> None:
    done = started(tmp_path, "-m", "+job=a", failures=1)
    assert done.returncode != 0
    assert f"{BASE} was not trained and the others start from it" in done.stderr
    assert jobs(tmp_path) == []


def side_by_side(folder: Path, *command: str) -> list[str]:
    """What two processes print that find themselves as torchrun would have started them, which costs a third."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "TORCHELASTIC_RUN_ID": "pair"}
    group |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            command, cwd=folder, env=environment() | group | {"RANK": rank}, stdout=subprocess.PIPE, text=True
        )
        for rank in ("0", "1")
    ]
    return [process.communicate(timeout=1800)[0] for process in processes]


@pytest.mark.slow
def test_of_two_processes_the_first_trains_it_and_none_goes_on_without_it(tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text(TWICE)
    printed = side_by_side(tmp_path, sys.executable, "twice.py", *words_of(tmp_path, "+job=a", failures=1))
    assert printed == ["1 True\n0 False\n", "1 False\n0 False\n"]
    assert len(trained_with(tmp_path)) == 2  # each time by one of them; the second time no job had come first
    assert jobs(tmp_path) == ["a", "a"]


def test_where_nothing_is_started_from_nothing_is_trained(tmp_path: Path) -> None:
    done = started(tmp_path, "-m", "+job=a", base="")
    assert done.returncode == 0, done.stderr
    assert trained_with(tmp_path) == []
