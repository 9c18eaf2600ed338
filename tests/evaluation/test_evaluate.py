"""The command itself: where it writes, what it prints, and what it says when it cannot."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import hydra
import pytest
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from lungdet.evaluation.gathering.results import EvaluationError
from lungdet.programs import evaluate
from lungdet.runs.folder import Run, find_runs, load_run
from lungdet.training import artifacts, scoring
from tests.calling import CHECKOUT, call
from tests.fake_runs import predictions, sheet, write_run
from tests.wandb_files import recorded


def command(*arguments, cwd: Path) -> subprocess.CompletedProcess:
    """Called with fewer draws than it has by itself."""
    return call(evaluate, "draws=100", *arguments, cwd=cwd)


def test_a_multirun_is_evaluated_with_one_command(tmp_path):
    for model in ("cnn", "cnn_lstm"):
        for seed in (0, 1):
            write_run(tmp_path / "sweep" / f"{seed}_{model}", model, seed)
    write_run(tmp_path / "sweep" / "failed", finished=False)
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "import lungdet.training.shortcuts\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    words = [sys.executable, "-c", code, CHECKOUT / "evaluate.py", f"runs={tmp_path / 'sweep'}", "draws=100"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "False", "numbers, pages and shortcuts import no network"
    out = tmp_path / "sweep" / "report"
    assert sorted(path.name for path in out.iterdir()) == [
        "MODEL_CARD.md",
        "claim.html",
        "claim.md",
        "figures",
        "metrics.json",
        "report.html",
        "report.md",
        "tables",
    ]
    numbers = json.loads((out / "metrics.json").read_text())
    assert {"accuracy", "precision", "recall", "f1", "auroc"} <= set(numbers["models"]["cnn_lstm"]["test"])
    assert f"report: {out}/report.html" in done.stdout
    started = f"  {sys.executable} {CHECKOUT}"  # as this one was, so that it can be pasted here
    assert [line for line in done.stdout.splitlines()[-6:] if line.startswith("  ")] == [
        f"{started}/train.py -m seed=0,1,2",
        f"{started}/evaluate.py runs={tmp_path}/sweep draws=100 efficiency=true",
        f"{started}/evaluate.py runs={tmp_path}/sweep draws=100 threshold.rule=sensitivity threshold.at=0.95",
    ]
    assert "always abnormal" in done.stdout
    assert "CNN-LSTM: 2 runs, seed 0, 1\n" in done.stdout
    assert "tested on the test part: 68 images of 34 patients" in done.stdout
    assert (
        "thresholds: rule youden on validation predictions, kept as thresholds.json in each run that has none"
        in done.stdout
    )
    assert "failed" in done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["sweep"]  # nothing is left where one stands


def assert_logged(report: Path, runs: list[Run]) -> None:
    """A dashboard was told of the report's numbers and tables, of no single patient, and of what it was made from."""
    sent, numbers = recorded(report), json.loads((report / "metrics.json").read_text())
    assert (sent.run.job_type, sent.run.run_group, sent.run.display_name) == ("evaluate", "autumn", "x/report")
    assert [*sent.run.tags] == ["cnn", "cnn_lstm"]
    assert sent.config["threshold"]["rule"] == "sensitivity"
    assert sent.summary["answer"] == numbers["answer"]
    kinds = {(artifact.type, artifact.use_after_commit): artifact.name for artifact in sent.artifacts}
    assert kinds["predictions", True] == f"predictions-{artifacts.identifier(runs[-1])}"
    assert ("report", False) in kinds
    tables = {name.partition(".")[0] for row in sent.history for name in row if "." in name}
    assert {"comparison", "report/differences", "report/subgroups"} <= tables
    assert not [name for name in tables if "mistakes" in name]
    [path] = report.glob("wandb/offline-run-*/files/media/table/comparison_*.json")
    rows = {tuple(row[:2]): row[2:] for row in json.loads(path.read_text())["data"]}
    facts = numbers["models"]["cnn"]
    assert rows["cnn", "auroc"] == [facts["test"]["auroc"], *facts["test_interval"]["auroc"], 68]


def test_a_single_run_and_a_list_of_runs_write_where_they_meet(tmp_path):
    one, two = write_run(tmp_path / "x" / "a"), write_run(tmp_path / "x" / "b", "cnn_lstm")
    assert command(f"runs={one}", cwd=tmp_path).returncode == 0
    assert (one / "report" / "report.html").exists()
    words = ("threshold.rule=sensitivity", "threshold.at=0.9", "logger=wandb", "logger.group=autumn")
    assert command(f"runs=[{one},{two}]", *words, cwd=tmp_path).returncode == 0
    assert (tmp_path / "x" / "report" / "report.html").exists()
    assert_logged(tmp_path / "x" / "report", [load_run(folder) for folder in (one, two)])
    for folder in tmp_path.glob("x/report/wandb/*/files"):
        (folder / "config.yaml").touch()  # as Weights & Biases leaves one online
    assert [run.folder for run in find_runs(tmp_path)] == [one, two]

    assert json.loads((one / "thresholds.json").read_text())["abnormal"]["rule"] == "sensitivity"
    text = (tmp_path / "x" / "report" / "report.md").read_text()
    assert "## Results at the threshold that `sensitivity 0.9` chose on validation" in text
    assert "At the threshold that `sensitivity 0.9` chose on validation: CNN recall " in text
    done = command(f"runs={one}", f"out={tmp_path / 'again'}", cwd=tmp_path)
    assert f"{one}: the stored thresholds (sensitivity at 0.9) stay" in done.stdout
    assert "going to be replaced" not in done.stdout
    assert json.loads((one / "thresholds.json").read_text())["abnormal"]["rule"] == "sensitivity"
    numbers = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert (numbers["threshold"]["rule"], numbers["threshold"]["asked"]) == ("youden", False)
    done = command(f"runs={one}", f"out={tmp_path / 'again'}", "threshold.rule=f1", cwd=tmp_path)
    assert f"{tmp_path / 'again'}: the report that is there is going to be replaced; out=FOLDER" in done.stdout
    assert "the stored thresholds (sensitivity at 0.9) are replaced by rule f1" in done.stdout


def test_errors_are_one_message_and_a_failing_status(tmp_path):
    run = write_run(tmp_path / "run")
    other = write_run(tmp_path / "other", "cnn_lstm", split_seed=3)
    cut = write_run(tmp_path / "cut", finished=False)
    cases = [
        ([f"runs={tmp_path / 'nowhere'}"], "no such folder"),
        ([f"runs={cut}"], f"resume={cut}"),
        ([f"runs=[{run},{other}]"], "their test parts differ"),
        ([f"runs={run}", "threshold.rule=yuden"], "the rules are"),
        ([], "runs=FOLDER"),
        ([f"runs={run}", f"out={run / 'config.yaml' / 'report'}"], "(Not a directory); name another place"),
        ([f"runs={run}", "draw=100"], "draw: there is no such key; did you mean draws?"),
    ]
    for arguments, message in cases:
        done = command(*arguments, cwd=tmp_path)
        assert done.returncode == 1, arguments
        assert message in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr, arguments
    with FileLock(run.parent / ".report.lock"):
        done = command(f"runs={run}", f"out={tmp_path}", cwd=tmp_path)
    assert done.returncode == 1
    assert f"out={tmp_path}: another process is writing it" in done.stderr
    (tmp_path / "mine" / ".report.lock").mkdir(parents=True)
    done = command(f"runs={run}", f"out={tmp_path}/mine", cwd=tmp_path)
    assert "mine/.report.lock: Is a directory; a folder is where a file is to be: move it away" in done.stderr
    assert not (run / "report").exists()
    assert not (tmp_path / "nowhere").exists()


def test_the_help_text_is_there_at_once():
    code = (
        "import sys, runpy; sys.argv = ['evaluate.py', '--help']\n"
        "try: runpy.run_path('evaluate.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'numpy', 'matplotlib', 'rich', 'jinja2'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert "threshold.rule=f1" in done.stdout
    assert done.stdout.strip().endswith("loaded: []")


def scored(monkeypatch, run: Path, *arguments: str, images: int = 24, seed: int = 9) -> dict:
    """Evaluates the run on other data as the command does, all but the network; the `data` group that is scored."""
    asked = {}

    def score(run, data, trust, views):
        asked.update(folder=run.folder, data=OmegaConf.to_container(data, resolve=True))
        table = predictions({"montgomery": images}, seed=seed)
        sources = {"montgomery": sheet("montgomery")}
        table.attrs["scored"] = {
            "excluded": 0,
            "copies": 0,
            "unsearched": [],
            "sources": sources,
            "store": "/somewhere",
        }
        return table

    monkeypatch.setattr(scoring, "score", score)
    with hydra.initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        config = hydra.compose("evaluate", [f"runs={run}", "draws=100", *arguments], return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # and none afterwards
    HydraConfig.instance().set_config(config)
    OmegaConf.set_struct(config, False)
    with ExitStack() as locks:
        evaluate.evaluate(config, locks)
    assert asked["folder"] == run
    return asked["data"]


def test_other_data_is_scored_by_the_run_and_reported_at_the_threshold_of_the_rule_asked_for(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", config={"outputs": "theirs"})
    assert command(f"runs={run}", "threshold.rule=f1", cwd=tmp_path).returncode == 0
    words = ("data=montgomery", "data.root=here", "threshold.rule=f1")
    assert scored(monkeypatch, run, *words)["root"] == "here"
    assert (run / "predictions" / "montgomery.parquet").exists()
    numbers = json.loads((run / "report-montgomery" / "metrics.json").read_text())
    assert numbers["data"]["external"] == "montgomery"
    assert numbers["data"]["test"]["images"] == 24
    assert numbers["threshold"]["rule"] == "f1"
    stored = json.loads((run / "thresholds.json").read_text())["abnormal"]
    assert numbers["models"]["cnn"]["thresholds"] == [stored]
    assert (run / "predictions" / "test.parquet").exists()


def test_other_data_is_prepared_as_the_runs_own_unless_the_command_line_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr("lungdet.evaluation.report.report_on", lambda *_: (None, {}))
    run = write_run(tmp_path / "run", config={"data.image_size": 64, "data.resize": "pad", "data.bits": 12})
    data = scored(monkeypatch, run, "data=montgomery")
    assert (data["image_size"], data["resize"], data["bits"]) == (64, "pad", 12)
    data = scored(monkeypatch, run, "data=montgomery", "data.image_size=128", "++data.bits=null")
    assert (data["image_size"], data["resize"], data["bits"]) == (128, "pad", None)  # `score` refuses it


def test_tables_are_kept_apart_and_other_images_in_the_same_one_are_said(tmp_path, monkeypatch, caplog):
    run = write_run(tmp_path / "run")
    for place in (
        ["data.table=somewhere/mine.csv"],
        ["data.table=elsewhere/mine.csv"],
        ["data.table=elsewhere/mine.csv", "data.root=images"],
    ):
        scored(monkeypatch, run, "data=table", *place)
    for kind in ("predictions/table-mine-*.parquet", "report-table-mine-*/report.html"):
        assert len(list(run.glob(kind))) == 3
    monkeypatch.setattr("lungdet.evaluation.report.report_on", lambda *_: (None, {}))
    scored(monkeypatch, run, "data=folder", "data.root=somewhere/images")
    assert len(list(run.glob("predictions/folder-images-*.parquet"))) == 1
    scored(monkeypatch, run, "data=table", "data.table=somewhere/mine.csv")
    assert "are replaced" not in caplog.text
    scored(monkeypatch, run, "data=table", "data.table=somewhere/mine.csv", seed=10)
    assert ".parquet: predictions of other images stood there and are replaced" in caplog.text
    with pytest.raises(EvaluationError, match="data=table: which one"):
        scored(monkeypatch, run, "data=table")
