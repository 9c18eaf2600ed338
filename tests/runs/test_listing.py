"""`lungdet runs FOLDER` says of each run what has become of it."""

import os
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from lungdet.programs import runs
from lungdet.runs import listing, starting
from lungdet.runs.folder import Run, find_runs
from tests.calling import call
from tests.runs.cut_runs import config, cut_run


def epochs(run: Run, losses: list[float]) -> None:
    table = pd.DataFrame({"epoch": range(len(losses)), "val/loss": losses, "seconds": 60.0})
    table.assign(**{"val/accuracy": table["epoch"] / 10, "val/f1": 0.5, "val/auroc": 0.7}).to_csv(
        run.folder / "metrics.csv", index=False
    )


def lines(folder: Path) -> dict[str, dict[str, str]]:
    rows = listing.varying({run: listing.line(run, folder) for run in find_runs(folder)})
    return {row["run"].removeprefix("runs/"): row for row in rows}


def test_a_run_is_finished_running_cut_or_without_an_epoch(tmp_path: Path) -> None:
    cut_run(tmp_path, "finished").finish()
    cut_run(tmp_path, "cut")
    with starting.start(config(tmp_path, run_dir=f"{tmp_path}/runs/failed")):
        pass
    with starting.start(config(tmp_path, run_dir=f"{tmp_path}/runs/running")):
        assert {name: row["state"] for name, row in lines(tmp_path).items()} == {
            "cut": "cut",
            "failed": "no epoch",
            "finished": "finished",
            "running": "running",
        }
    assert lines(tmp_path)["running"]["state"] == "no epoch"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_runs_of_another_user_are_listed(tmp_path: Path) -> None:
    cut_run(tmp_path, "finished").finish()
    cut_run(tmp_path, "cut")
    for lock in tmp_path.rglob(".lock"):
        lock.chmod(0o444)
    assert {name: row["state"] for name, row in lines(tmp_path).items()} == {"cut": "cut", "finished": "finished"}


def test_metrics_are_those_of_the_best_epoch_by_validation_and_time_is_of_all(tmp_path: Path) -> None:
    epochs(cut_run(tmp_path, "a"), [0.9, 0.4, 0.6])
    with starting.start(config(tmp_path, run_dir=f"{tmp_path}/runs/b")):
        pass
    trained, begun = (
        [row[name] for name in ("epochs", "val loss", "val accuracy", "time")] for row in lines(tmp_path).values()
    )
    assert trained == ["3 of 3", "0.400", "0.100", "0:03:00"]
    assert begun == ["0 of 3", "", "", ""]


def test_a_column_in_which_nothing_stands_is_left_out(tmp_path: Path) -> None:
    epochs(cut_run(tmp_path, "a"), [0.9])
    headings = [column.header for column in listing.table([*lines(tmp_path).values()]).columns]
    assert headings == ["run", "state", "epochs", "val\nloss", "val\naccuracy", "val\nf1", "val\nauroc", "time"]


def test_what_only_some_command_lines_said_stands_beside_a_run(tmp_path: Path) -> None:
    for seed in (0, 1):
        composed = OmegaConf.merge(config(tmp_path), {"seed": seed, "run_dir": f"{tmp_path}/runs/{seed}"})
        with starting.start(composed, ["data=table", f"trust=[clinic{seed}]"]):
            pass
    rows = [*lines(tmp_path).values()]
    assert [row["with"] for row in rows] == ["trust=[clinic0]", "trust=[clinic1]"]
    [*_, words] = listing.table(rows).columns
    assert [str(cell) for cell in words.cells] == ["trust=[clinic0]", "trust=[clinic1]"]  # no markup of rich's


def test_the_command_lists_jobs_that_have_not_begun_and_names_a_folder_that_is_not_there(
    multirun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in find_runs(multirun):
        OmegaConf.save({"trainer": {"max_epochs": 3}}, run.folder / "config.yaml")
    for name, epochs in (("foreign", "${oc.env:TOKEN}"), ("damaged", 3)):
        (multirun / name).mkdir()
        OmegaConf.save({"trainer": {"max_epochs": epochs}}, multirun / name / "config.yaml")
    (multirun / "damaged/metrics.csv").write_text("epoch\n0\n")
    monkeypatch.setenv("TOKEN", "hunter2")
    listed = call(runs, multirun)
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.count("not begun") == 2
    assert listed.stdout.count("Not listed: ") == 2
    assert "damaged/metrics.csv is damaged" in listed.stdout
    assert "hunter2" not in listed.stdout
    assert "model=cnn_lstm seed=2" in listed.stdout
    (tmp_path / "empty").mkdir()
    assert call(runs, "empty", cwd=tmp_path).stdout == "empty: no run\n"
    wrong = call(runs, multirun / "none")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("lungdet runs: ")
    assert "no such folder" in wrong.stderr


def test_a_run_that_trains_says_how_long_the_epochs_to_come_will_take(tmp_path: Path) -> None:
    cut = cut_run(tmp_path, "a")
    assert lines(tmp_path)["a"]["left"] == ""
    with starting.start(config(tmp_path, resume=str(cut.folder))):
        assert lines(tmp_path)["a"]["left"] == "0:01:00"
