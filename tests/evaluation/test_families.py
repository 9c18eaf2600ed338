"""Runs in a folder are reported by what they were tested on and asked, and what cannot be evaluated is listed."""

import json
from pathlib import Path

import pytest

from lungdet.runs.folder import load_run
from tests.evaluation.test_evaluate import command
from tests.fake_runs import fold_of, write_run


def test_runs_tested_on_other_images_get_a_report_of_their_own_and_none_is_dropped(tmp_path):
    for model in ("cnn", "cnn_lstm"):
        write_run(tmp_path / "sweep" / f"a_{model}", model)
    write_run(tmp_path / "sweep" / "b", split_seed=1)
    write_run(tmp_path / "sweep" / "c", task="findings")
    for fold in (0, 1):
        write_run(tmp_path / "sweep" / f"fold_{fold}", split_seed=2 + fold, split=fold_of(fold, 2))
    ended = command(f"runs={tmp_path / 'sweep'}", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    reports = sorted(path.parent for path in (tmp_path / "sweep" / "report").glob("*/report.html"))
    assert len(reports) == 5  # folds drawn with another seed are another family
    for folder in reports:
        numbers = json.loads((folder / "metrics.json").read_text())
        evaluated = [run["run"] for block in numbers["models"].values() for run in block["runs"]]
        assert len(evaluated) + len(numbers["evaluated_elsewhere"]) == 6
        assert numbers["not_evaluated"] == []
        for run in numbers["evaluated_elsewhere"]:
            assert (folder / run["report"]).is_file()


def test_runs_that_are_named_themselves_and_do_not_belong_together_are_refused(tmp_path):
    cnn, lstm = write_run(tmp_path / "a"), write_run(tmp_path / "b", "cnn_lstm", split_seed=1)
    ended = command(f"runs=[{cnn},{lstm}]", cwd=tmp_path)
    assert ended.returncode != 0
    assert "their test parts differ" in ended.stderr


def test_one_family_that_cannot_be_evaluated_does_not_take_the_others_with_it(tmp_path):
    for name in ("a", "again"):
        write_run(tmp_path / "sweep" / name)
    write_run(tmp_path / "sweep" / "other", split_seed=1)
    ended = command(f"runs={tmp_path / 'sweep'}", "efficiency=false", cwd=tmp_path)
    assert ended.returncode != 0
    assert "are the same model with the same seed 0" in ended.stderr
    [report] = (tmp_path / "sweep" / "report").glob("*/metrics.json")
    listed = json.loads(report.read_text())["not_evaluated"]
    assert {Path(run["run"]).name for run in listed} == {"a", "again"}


def test_nothing_is_written_where_predictions_lack_the_images_of_one_family(tmp_path):
    first = write_run(tmp_path / "sweep" / "a")
    write_run(tmp_path / "sweep" / "b", split_seed=1)
    load_run(first).predictions("test").to_csv(tmp_path / "theirs.csv", index=False)
    ended = command(f"runs={tmp_path / 'sweep'}", f"predictions={tmp_path / 'theirs.csv'}", cwd=tmp_path)
    assert "theirs.csv lacks 68 of the 68 tested images" in ended.stderr
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == ["a", "b"]


def test_a_damaged_run_is_listed_and_the_others_are_evaluated(tmp_path):
    damage = {"config.yaml": "a: [", "environment.json": "{", "predictions/test.parquet": "no parquet"}
    for number, (name, text) in enumerate(damage.items()):
        (write_run(tmp_path / "sweep" / str(number)) / name).write_text(text)
    write_run(tmp_path / "sweep" / "whole", seed=5)
    ended = command(f"runs={tmp_path / 'sweep'}", "efficiency=false", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    listed = json.loads((tmp_path / "sweep" / "report" / "metrics.json").read_text())["not_evaluated"]
    assert sorted(Path(run["run"]).name for run in listed) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["draws=5"], "draws=5"), (["out=file"], "a file of that name"), (["runs="], "which runs?")],
)
def test_what_makes_no_sense_is_refused_in_a_line(tmp_path, arguments, message):
    write_run(tmp_path / "run")
    (tmp_path / "file").touch()
    ended = command("runs=run", *arguments, cwd=tmp_path)
    assert ended.returncode != 0
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
