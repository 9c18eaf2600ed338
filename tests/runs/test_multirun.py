"""A multirun's folder: jobs that left nothing are listed; runs tested on other images have their own report."""

import json
import shutil
from pathlib import Path

import pytest

from lungdet.runs.multirun import BASIC, Job, never_run
from tests.evaluation.test_evaluate import command
from tests.fake_runs import fold_of, write_run


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
        said = json.loads(path.read_text())["overrides"]
        path.write_text(json.dumps({"overrides": [*said, "trainer.max_epochs=30"], "asked_again": [said]}))
    assert len(never_run(multirun)) == 2


def test_a_searching_sweeper_and_a_folder_without_a_multirun_miss_nothing(multirun, tmp_path):
    text = (multirun / "multirun.yaml").read_text()
    (multirun / "multirun.yaml").write_text(text.replace(BASIC, "optuna.Sweeper"))
    assert never_run(multirun) == []
    assert never_run(tmp_path) == []


def test_the_report_lists_them(multirun, tmp_path):
    for number, model in ((0, "cnn"), (2, "cnn_lstm")):
        facts = multirun / f"{number}_job" / "environment.json"
        said = json.loads(facts.read_text())
        shutil.rmtree(facts.parent)
        write_run(facts.parent, model, 1)
        facts.write_text(json.dumps(json.loads(facts.read_text()) | said))
    done = command(f"runs={multirun}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = json.loads((multirun / "report" / "metrics.json").read_text())["not_evaluated"]
    assert [one["reason"] for one in listed] == [
        "job 1 of the multirun left no run: model=cnn seed=2",
        "job 3 of the multirun left no run: model=cnn_lstm seed=2",
    ]


def test_runs_tested_on_other_images_get_a_report_of_their_own_and_none_is_dropped(tmp_path):
    for model in ("cnn", "cnn_lstm"):
        write_run(tmp_path / "sweep" / f"a_{model}", model)
        write_run(tmp_path / "sweep" / f"b_{model}", model, split_seed=1)
        write_run(tmp_path / "sweep" / f"c_{model}", model, task="findings")
    for fold in (0, 1):
        write_run(tmp_path / "sweep" / f"fold_{fold}", split_seed=2 + fold, split=fold_of(fold, 2))
    done = command(f"runs={tmp_path / 'sweep'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    reports = sorted(path.parent for path in (tmp_path / "sweep" / "report").glob("*/report.html"))
    assert len(reports) == 5  # folds drawn with another seed are another family
    for folder in reports:
        numbers = json.loads((folder / "metrics.json").read_text())
        evaluated = [run["run"] for block in numbers["models"].values() for run in block["runs"]]
        assert len(evaluated) + len(numbers["evaluated_elsewhere"]) == 8
        assert numbers["not_evaluated"] == []
        for one in numbers["evaluated_elsewhere"]:
            assert (folder / one["report"]).is_file()


def test_runs_that_are_named_themselves_and_do_not_belong_together_are_refused(tmp_path):
    one, two = write_run(tmp_path / "a"), write_run(tmp_path / "b", "cnn_lstm", split_seed=1)
    done = command(f"runs=[{one},{two}]", cwd=tmp_path)
    assert done.returncode != 0
    assert "their test parts differ" in done.stderr


def test_one_family_that_cannot_be_evaluated_does_not_take_the_others_with_it(tmp_path):
    for name in ("a", "again"):
        write_run(tmp_path / "sweep" / name)
    write_run(tmp_path / "sweep" / "other", split_seed=1)
    done = command(f"runs={tmp_path / 'sweep'}", "efficiency=false", cwd=tmp_path)
    assert done.returncode != 0
    assert "are the same model with the same seed 0" in done.stderr
    [report] = (tmp_path / "sweep" / "report").glob("*/metrics.json")
    listed = json.loads(report.read_text())["not_evaluated"]
    assert {Path(one["run"]).name for one in listed} == {"a", "again"}


def test_a_damaged_run_is_listed_and_the_others_are_evaluated(tmp_path):
    damage = {"config.yaml": "a: [", "environment.json": "{", "predictions/test.parquet": "no parquet"}
    for number, (name, text) in enumerate(damage.items()):
        (write_run(tmp_path / "sweep" / str(number)) / name).write_text(text)
    write_run(tmp_path / "sweep" / "whole", seed=5)
    done = command(f"runs={tmp_path / 'sweep'}", "efficiency=false", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = json.loads((tmp_path / "sweep" / "report" / "metrics.json").read_text())["not_evaluated"]
    assert sorted(Path(one["run"]).name for one in listed) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["draws=5"], "draws=5"), (["out=file"], "a file of that name"), (["runs="], "which runs?")],
)
def test_what_makes_no_sense_is_refused_in_a_line(tmp_path, arguments, message):
    write_run(tmp_path / "run")
    (tmp_path / "file").touch()
    done = command("runs=run", *arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
