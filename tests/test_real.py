"""The documented commands on real radiographs, from the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHECKOUT

from lungdet.runs import find_runs

pytestmark = pytest.mark.slow


def command(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_both_models_are_trained_and_compared_on_chestxray14(real_data: Path, tmp_path: Path) -> None:
    root = f"data.root={real_data}/ChestX-ray14"
    command(
        "train.py", "-m", "data=chestxray14", root, "model=cnn,cnn_lstm", "trainer.max_epochs=3", f"outputs={tmp_path}"
    )
    (sweep,) = (tmp_path / "sweeps").iterdir()
    assert len(find_runs(sweep)) == 2
    said = command("evaluate.py", f"runs={sweep}")
    assert "CNN-LSTM" in said
    for name in ("report.html", "report.md"):
        text = (sweep / "report" / name).read_text()
        assert "450 images" in text
        assert "223 patients" in text
    numbers = json.loads((sweep / "report" / "metrics.json").read_text())
    for model in ("cnn", "cnn_lstm"):
        assert {"accuracy", "precision", "recall", "f1", "auroc"} <= numbers["models"][model]["test"].keys()
    command("evaluate.py", f"runs={find_runs(sweep)[0].folder}", "data=shenzhen", f"data.root={real_data}/Shenzhen")


def test_series_of_visits_and_all_controls_run_on_chestxray14(real_data: Path, tmp_path: Path) -> None:
    real = ["data=chestxray14", f"data.root={real_data}/ChestX-ray14", "data.image_size=64", "logger=csv"]
    small = ["seed=0", "trainer.max_epochs=1", f"outputs={tmp_path}", f"hydra.sweep.dir={tmp_path}/visits"]
    command("train.py", "experiment=controls", "model.sequence=visits", "model.gap=age", *real, *small)
    runs = find_runs(tmp_path / "visits")
    assert len(runs) == 7
    assert len({run.environment["split"]["hash"] for run in runs}) == 1
    numbers = json.loads((tmp_path / "visits" / "report" / "metrics.json").read_text())
    ((recurrence,), (series,)) = numbers["recurrence"], numbers["series"]
    assert recurrence["missing"] == []
    tested = runs[0].predictions("test")
    earlier = tested.groupby("patient_id")["visit"].rank() - 1
    assert recurrence["cases"]["earlier"]["images"] == (earlier >= 2).sum() > 0
    assert series["groups"]["1"]["images"] == tested["patient_id"].nunique()
    findings = ["task=findings", "model=cnn_lstm", "model.sequence=visits", "model.pooling=attention"]
    command("train.py", *findings, *real, *small[1:3], f"hydra.run.dir={tmp_path}/findings")
    (run,) = find_runs(tmp_path / "findings")
    assert run.finished
