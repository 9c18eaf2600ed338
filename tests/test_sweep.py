"""A multirun's folder: jobs that left nothing are listed; runs tested on other images have their own report."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_runs import write_run

from lungdet.evaluation import sweep
from tests.test_evaluate import command

APP = """
import sys, hydra
@hydra.main(version_base="1.3", config_path=None)
def main(config):
    if config.get("seed") == 2:
        raise RuntimeError("before it began")
    open("config.yaml", "w").close()
main()
"""


@pytest.fixture
def multirun(tmp_path: Path) -> Path:
    """The folder of a real multirun of which one job failed before it had a run folder."""
    (tmp_path / "app.py").write_text(APP)
    arguments = ["-m", "+model=cnn,cnn_lstm", "+seed=1,2", "+width=8", "hydra.sweep.dir=sweep"]
    arguments += ["hydra.sweep.subdir=${hydra.job.num}_job", "hydra.job.chdir=true", "hydra.output_subdir=null"]
    subprocess.run([sys.executable, "app.py", *arguments], cwd=tmp_path, capture_output=True, check=False)
    return tmp_path / "sweep"


def test_jobs_that_left_no_run_are_named_by_what_varies(multirun):
    assert [one.reason for one in sweep.never_run(multirun)] == [
        "job 1 of the multirun left no run: model=cnn seed=2",
        "job 3 of the multirun left no run: model=cnn_lstm seed=2",
    ]


def test_a_searching_sweeper_and_a_folder_without_a_multirun_miss_nothing(multirun, tmp_path):
    text = (multirun / "multirun.yaml").read_text()
    (multirun / "multirun.yaml").write_text(text.replace(sweep.BASIC, "optuna.Sweeper"))
    assert sweep.never_run(multirun) == []
    assert sweep.never_run(tmp_path) == []


def test_the_report_lists_them(multirun, tmp_path):
    for number, model in ((0, "cnn"), (2, "cnn_lstm")):
        shutil.rmtree(multirun / f"{number}_job")
        write_run(multirun / f"{number}_job", model, 1)
    done = command(f"runs={multirun}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = json.loads((multirun / "report" / "metrics.json").read_text())["not_evaluated"]
    assert [one["reason"].split(": ")[1] for one in listed] == ["model=cnn seed=2", "model=cnn_lstm seed=2"]


def test_runs_tested_on_other_images_get_a_report_of_their_own_and_none_is_dropped(tmp_path):
    for model in ("cnn", "cnn_lstm"):
        write_run(tmp_path / "sweep" / f"a_{model}", model)
        write_run(tmp_path / "sweep" / f"b_{model}", model, split_seed=1)
        write_run(tmp_path / "sweep" / f"c_{model}", model, task="findings")
    for fold in (0, 1):
        write_run(tmp_path / "sweep" / f"fold_{fold}", split_seed=2 + fold, split=f"fold {fold} of 2")
    done = command(f"runs={tmp_path / 'sweep'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    reports = sorted(path.parent for path in (tmp_path / "sweep" / "report").glob("*/report.html"))
    assert len(reports) in (4, 5)  # folds drawn with another seed are another family
    for folder in reports:
        numbers = json.loads((folder / "metrics.json").read_text())
        evaluated = [run["run"] for block in numbers["models"].values() for run in block["runs"]]
        assert len(evaluated) + len(numbers["not_evaluated"]) == 8
        for one in numbers["not_evaluated"]:
            assert (folder / one["reason"].split("see ")[1]).is_file()


def test_runs_that_are_named_themselves_and_do_not_belong_together_are_refused(tmp_path):
    one, two = write_run(tmp_path / "a"), write_run(tmp_path / "b", "cnn_lstm", split_seed=1)
    done = command(f"runs=[{one},{two}]", cwd=tmp_path)
    assert done.returncode != 0
    assert "their test parts differ" in done.stderr
