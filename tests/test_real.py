"""Real radiographs are trained on, compared and reported as the documentation has it."""

import json
from pathlib import Path

import pytest

import evaluate
import train
from lungdet.runs.folder import find_runs
from tests.calling import output

pytestmark = pytest.mark.slow
SMALL = ("data.image_size=32", "data.num_workers=0", "trainer.max_epochs=1", "logger=csv", "seed=0")
QUICK = ("efficiency=false", "draws=100")


@pytest.fixture(scope="module")
def chestxray14(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Prepared once for all."""
    root, outputs = f"data.root={real_data}/ChestX-ray14", tmp_path_factory.mktemp("outputs")
    return "data=chestxray14", root, f"outputs={outputs}", *SMALL


def test_both_models_are_trained_and_compared_on_chestxray14_and_scored_on_another_source(
    chestxray14: tuple[str, ...], real_data: Path, tmp_path: Path
) -> None:
    output(train, "-m", *chestxray14, "model=cnn,cnn_lstm", f"hydra.sweep.dir={tmp_path}")
    runs = find_runs(tmp_path)
    assert len(runs) == 2
    assert "CNN-LSTM" in output(evaluate, f"runs={tmp_path}", *QUICK)
    for name in ("report.html", "report.md"):
        text = (tmp_path / "report" / name).read_text()
        assert "450 images" in text
        assert "223 patients" in text
    numbers = json.loads((tmp_path / "report" / "metrics.json").read_text())
    for model in ("cnn", "cnn_lstm"):
        assert {"accuracy", "precision", "recall", "f1", "auroc"} <= numbers["models"][model]["test"].keys()
    other = ["data=shenzhen", f"data.root={real_data}/Shenzhen", f"outputs={tmp_path}"]
    output(evaluate, f"runs={runs[0].folder}", *other, *QUICK)
    assert runs[0].predictions("shenzhen")["target_abnormal"].notna().all()


def test_series_of_visits_and_their_controls_run_on_chestxray14(chestxray14: tuple[str, ...], tmp_path: Path) -> None:
    report = "~hydra.callbacks.report"
    """Those that the recurrence is compared with; `experiment=controls` trains two more."""
    models = ["model=cnn,cnn_lstm,cnn_lstm_shuffled,cnn_mlp,length_only"]
    visits = ["model.sequence=visits", "model.gap=age", f"hydra.sweep.dir={tmp_path}/visits"]
    output(train, "experiment=controls", *models, *visits, *chestxray14, report)
    runs = find_runs(tmp_path / "visits")
    assert len(runs) == 5
    assert len({run.environment["split"]["hash"] for run in runs}) == 1
    output(evaluate, f"runs={tmp_path}/visits", *QUICK)
    numbers = json.loads((tmp_path / "visits" / "report" / "metrics.json").read_text())
    ((recurrence,), (series,)) = numbers["recurrence"], numbers["series"]
    assert recurrence["missing"] == []
    tested = runs[0].predictions("test")
    earlier = tested.groupby("patient_id")["visit"].rank() - 1
    assert recurrence["cases"]["earlier"]["images"] == (earlier >= 2).sum() > 0
    assert series["groups"]["1"]["images"] == tested["patient_id"].nunique()


def test_findings_of_series_are_trained_on_chestxray14(chestxray14: tuple[str, ...], tmp_path: Path) -> None:
    findings = ["task=findings", "model=cnn_lstm", "model.sequence=visits", "model.pooling=attention"]
    output(train, *findings, *chestxray14, f"hydra.run.dir={tmp_path}/findings")
    (run,) = find_runs(tmp_path / "findings")
    assert run.finished
