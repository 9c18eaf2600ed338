"""A multirun's folder has a name that shells take, and jobs that left nothing in it are listed."""

import json
import shutil
from pathlib import Path

import pytest

import train
from lungdet.errors import RunError
from lungdet.runs.folder import find_runs
from lungdet.runs.multirun import BASIC, Job, never_run, sweep_folder
from tests.calling import call
from tests.evaluation.test_evaluate import command
from tests.fake_runs import write_run


def test_jobs_that_left_no_run_are_named_by_what_varies(multirun):
    assert never_run(multirun) == [
        Job(multirun, 1, ("model=cnn", "seed=2")),
        Job(multirun, 3, ("model=cnn_lstm", "seed=2")),
    ]


def test_a_run_counts_though_its_multirun_was_given_again_with_a_name_and_other_words_of_no_consequence(multirun):
    missing = never_run(multirun)
    path = multirun / "multirun.yaml"
    for words in (
        "sweep.name=sweep",
        "sweep.name=sweep\n    - logger=csv\n    - data.store=/here\n    - +data.num_workers=2",
    ):
        path.write_text(path.read_text().replace("- +width=8", f"- +width=8\n    - {words}"))
        assert never_run(multirun) == missing
    path.write_text(path.read_text().replace("+width=8", "+width=9"))
    assert len(never_run(multirun)) == 4


def test_what_a_multirun_would_fetch_from_this_machine_stays_as_it_is_written(multirun, monkeypatch):
    monkeypatch.setenv("TOKEN", "hunter2")
    path = multirun / "multirun.yaml"
    path.write_text(path.read_text().replace("+width=8", "+width=${oc.env:TOKEN}"))
    assert "hunter2" not in str(never_run(multirun))


def test_a_run_counts_for_each_command_that_asked_for_it(multirun):
    for path in multirun.rglob("environment.json"):
        words = json.loads(path.read_text())["overrides"]
        path.write_text(json.dumps({"overrides": [*words, "trainer.max_epochs=30"], "asked_again": [words]}))
    assert len(never_run(multirun)) == 2


def test_a_searching_sweeper_jobs_that_train_nothing_and_a_folder_without_a_multirun_miss_nothing(multirun, tmp_path):
    text = (multirun / "multirun.yaml").read_text()
    for before, after in ((BASIC, "optuna.Sweeper"), ("- +width=8", "- find=lr")):
        (multirun / "multirun.yaml").write_text(text.replace(before, after))
        assert never_run(multirun) == []
    assert never_run(tmp_path) == []


def test_a_damaged_multirun_is_refused_by_file(multirun):
    (multirun / "multirun.yaml").write_text("hydra: [")
    with pytest.raises(RunError, match=r"multirun\.yaml is damaged"):
        never_run(multirun)


def test_the_report_lists_them(multirun, tmp_path):
    for number, model in ((0, "cnn"), (2, "cnn_lstm")):
        path = multirun / f"{number}_job" / "environment.json"
        facts = json.loads(path.read_text())
        shutil.rmtree(path.parent)
        write_run(path.parent, model, 1)
        path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    ended = command(f"runs={multirun}", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    listed = json.loads((multirun / "report" / "metrics.json").read_text())["not_evaluated"]
    assert [run["reason"] for run in listed] == [
        "job 1 of the multirun left no run: model=cnn seed=2",
        "job 3 of the multirun left no run: model=cnn_lstm seed=2",
    ]


@pytest.mark.parametrize("name", ["a b", "../up", ".hidden", "", "a/b", "a=b", "a,b"])
def test_a_sweep_is_named_so_that_shells_and_hydra_take_it(name: str) -> None:
    assert sweep_folder("paper_2.1-b") == "paper_2.1-b"
    with pytest.raises(RunError, match=r"sweep\.name="):
        sweep_folder(name)


def test_the_name_of_a_sweep_is_refused_where_there_is_one_job(tmp_path: Path) -> None:
    ended = call(train, "sweep.name=paper", f"outputs={tmp_path}", f"hydra.run.dir={tmp_path}/run")
    assert ended.returncode == 1
    assert "train.py: sweep.name names the folder of several jobs: add -m" in ended.stderr
    assert find_runs(tmp_path) == []
