"""`python -m lungdet.runs FOLDER` says of each run what has become of it."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

import train
from lungdet.errors import RunError
from lungdet.runs import listing, starting
from lungdet.runs.folder import Run, find_runs, finish
from lungdet.runs.multirun import sweep_folder
from tests.calling import call
from tests.runs.test_folder import config, cut_run


def epochs(run: Run, losses: list[float]) -> None:
    table = pd.DataFrame({"epoch": range(len(losses)), "val/loss": losses, "seconds": 60.0})
    table.assign(**{"val/accuracy": table["epoch"] / 10, "val/f1": 0.5, "val/auroc": 0.7}).to_csv(
        run.folder / "metrics.csv", index=False
    )


def lines(folder: Path) -> dict[str, dict[str, str]]:
    found = find_runs(folder)
    told = listing.varying(found, [listing.line(run, folder) for run in found])
    return {one["run"].removeprefix("runs/"): one for one in told}


def test_a_run_is_finished_running_cut_or_without_an_epoch(tmp_path: Path) -> None:
    finish(cut_run(tmp_path, "finished"))
    cut_run(tmp_path, "cut")
    with starting.start(config(tmp_path, run_dir=f"{tmp_path}/runs/failed")):
        pass
    with starting.start(config(tmp_path, run_dir=f"{tmp_path}/runs/running")):
        assert {name: one["state"] for name, one in lines(tmp_path).items()} == {
            "cut": "cut",
            "failed": "no epoch",
            "finished": "finished",
            "running": "running",
        }
    assert lines(tmp_path)["running"]["state"] == "no epoch"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_runs_of_another_user_are_listed(tmp_path: Path) -> None:
    finish(cut_run(tmp_path, "finished"))
    cut_run(tmp_path, "cut")
    for lock in tmp_path.rglob(".lock"):
        lock.chmod(0o444)
    assert {name: one["state"] for name, one in lines(tmp_path).items()} == {"cut": "cut", "finished": "finished"}


def test_metrics_are_those_of_the_best_epoch_by_validation_and_time_is_of_all(tmp_path: Path) -> None:
    epochs(cut_run(tmp_path, "a"), [0.9, 0.4, 0.6])
    with starting.start(config(tmp_path, run_dir=f"{tmp_path}/runs/b")):
        pass
    one, other = lines(tmp_path).values()
    assert (one["epochs"], one["val loss"], one["val accuracy"], one["time"]) == ("3 of 3", "0.400", "0.100", "0:03:00")
    assert (other["epochs"], other["val loss"], other["time"]) == ("0 of 3", "", "")


def test_what_only_some_command_lines_said_stands_beside_a_run(tmp_path: Path) -> None:
    for seed in (0, 1):
        here = OmegaConf.merge(config(tmp_path), {"seed": seed, "run_dir": f"{tmp_path}/runs/{seed}"})
        with starting.start(here, ["data=table", f"seed={seed}"]):
            pass
    assert [one["with"] for one in lines(tmp_path).values()] == ["seed=0", "seed=1"]


def test_the_command_lists_jobs_that_have_not_begun_and_names_a_folder_that_is_not_there(
    multirun: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for run in find_runs(multirun):
        OmegaConf.save({"trainer": {"max_epochs": 3}}, run.folder / "config.yaml")
    (multirun / "foreign").mkdir()
    OmegaConf.save({"trainer": {"max_epochs": "${oc.env:TOKEN}"}}, multirun / "foreign/config.yaml")
    monkeypatch.setenv("TOKEN", "hunter2")
    command = [sys.executable, "-m", "lungdet.runs"]
    told = subprocess.run([*command, str(multirun)], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("not begun") == 2
    assert "Not listed: " in told.stdout
    assert "hunter2" not in told.stdout
    assert "model=cnn_lstm seed=2" in told.stdout
    wrong = subprocess.run([*command, str(multirun / "none")], capture_output=True, text=True)
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("lungdet.runs: ")
    assert "no such folder" in wrong.stderr


@pytest.mark.parametrize("name", ["a b", "../up", ".hidden", "", "a/b", "a=b", "a,b"])
def test_a_sweep_is_named_so_that_shells_and_hydra_take_it(name: str) -> None:
    assert sweep_folder("paper_2.1-b") == "paper_2.1-b"
    with pytest.raises(RunError, match=r"sweep\.name="):
        sweep_folder(name)


def test_the_name_of_a_sweep_is_refused_where_there_is_one_job(tmp_path: Path) -> None:
    done = call(train, "sweep.name=paper", f"outputs={tmp_path}", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 1
    assert "train.py: sweep.name names the folder of several jobs: add -m" in done.stderr
    assert find_runs(tmp_path) == []
