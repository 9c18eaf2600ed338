"""What a model learns from, from when on, for how long, and with which arithmetic."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lungdet.errors import InputError
from lungdet.machine import hardware
from lungdet.models.classifier import Classifier
from lungdet.runs import starting
from lungdet.runs.folder import Run, load_run
from lungdet.training import fitting
from lungdet.training.trainer import build_trainer
from tests.small_runs import configured, trained, weights


def test_what_was_trained_on_is_named_and_the_test_part_is_the_same(table: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(table)
    rows["dataset"] = np.where(rows["patient_id"] < 24, "north", "south")
    rows.to_csv(table.parent / "two.csv", index=False)
    mine = table.parent / "two.csv"
    small = ("trainer.max_epochs=1", "data.train_prevalence=0.25")
    north, both = (
        trained(configured(tmp_path / str(i), mine, *small, *more))
        for i, more in enumerate([["data.train_on=north"], ["data.train_on=[south,north]"]])
    )
    assert north.environment["split"]["name"] == "random, trained on north, 0.25 abnormal in train"
    assert both.environment["split"]["name"] == "random, trained on north+south, 0.25 abnormal in train"
    assert set(north.predictions("train")["dataset"]) == set(north.predictions("val")["dataset"]) == {"north"}
    assert set(north.predictions("test")["dataset"]) == {"north", "south"}
    parts = [run.environment["split"]["parts"] for run in (north, both)]
    assert parts[0]["test"]["hash"] == parts[1]["test"]["hash"]
    for part in parts:
        assert part["train"]["abnormal"] == round(0.25 * part["train"]["labelled"])


def test_training_that_diverges_says_so_and_is_not_called_finished(table: Path, tmp_path: Path, monkeypatch) -> None:
    nan = float("nan")
    monkeypatch.setattr("lungdet.models.classifier.Classifier._loss", lambda _, logits, *rest: logits.sum() * nan)
    with pytest.raises(InputError, match=r"never a number.*model\.learning_rate"):
        trained(configured(tmp_path, table, "trainer.max_epochs=1", "trainer.early_stopping=null"))
    assert not load_run(tmp_path / "runs" / "new").finished


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (("trainer.early_stopping=1", "model.learning_rate=3"), "no lower validation loss (trainer.early_stopping=1)"),
        (("+trainer.max_time={milliseconds:1}",), "the time is up (trainer.max_time)"),
    ],
)
def test_training_that_ends_early_says_why(
    table: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: tuple[str, ...], reason: str
) -> None:
    caplog.set_level("INFO")
    run = trained(configured(tmp_path, table, "trainer.max_epochs=9", *changes))
    assert f"training ends after epoch {run.environment['epochs']} of 9: {reason}" in caplog.text


def test_a_backbone_is_left_alone_until_the_epoch_from_which_it_learns(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    for hook in ("on_fit_start", "on_validation_epoch_start", "on_train_epoch_end"):
        before = getattr(Classifier, hook)

        def note(model: Classifier, before=before) -> None:
            states.append({name: value.clone() for name, value in model.backbone.state_dict().items()})
            before(model)

        monkeypatch.setattr(Classifier, hook, note)
    late = ("model.backbone.unfreeze_at=2", "model.backbone.rate_factor=0.1", "model.learning_rate=0.01")
    run = trained(configured(tmp_path, table, "trainer.max_epochs=3", "model.backbone.widths=[4,8]", *late))
    start = states[0]
    for name, value in start.items():
        assert all(torch.equal(value, frozen[name]) for frozen in states[1:5]), name
        assert not any(torch.equal(value, learnt[name]) for learnt in states[5:7]), name
    assert (run.epochs["learning_rate"] == 0.01).all()


def test_a_quick_try_takes_whole_patients_of_both_classes(table: Path, tmp_path: Path) -> None:
    with starting.start(configured(tmp_path, table, "data.limit=40")) as run:
        data = fitting.build_data(run.config, fitting.build_model(run))
        data.setup()
    facts = data.describe()
    assert (facts["images"], facts["patients"], facts["limit"]) == (40, 20, 40)
    assert (data.manifest.groupby("abnormal")["patient_id"].nunique() == 10).all()


def test_balanced_class_weights_are_counted_on_the_training_part(table: Path, tmp_path: Path) -> None:
    config = configured(tmp_path, table, "model.class_weights=balanced", "trainer.max_epochs=1")
    with starting.start(config) as run:
        model = fitting.build_model(run)
        data = fitting.build_data(run.config, model)
        data.setup()
        trainer = build_trainer(run, model, hardware.choose("32-true", "auto"))
        data.manifest.loc[data.rows("train")[:10], "abnormal"] = 0.0
        trainer.fit(model, data)
    share = data.manifest["abnormal"].iloc[data.rows("train")].mean()
    assert share != 0.5
    assert model.class_weights.tolist() == pytest.approx([0.5 / (1 - share), 0.5 / share])


@pytest.fixture(scope="module")
def finding_by_finding(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Computed in bf16."""
    rows = pd.read_csv(table)
    rows["effusion"] = rows["abnormal"]
    rows["nodule"] = np.where(rows["patient_id"] % 3 == 0, np.nan, 0)
    rows.to_csv(table.parent / "findings.csv", index=False)
    words = ("task=findings", "model=cnn_lstm", "trainer.precision=bf16-mixed", "trainer.max_epochs=1")
    return trained(configured(tmp_path_factory.mktemp("findings"), table.parent / "findings.csv", *words))


def test_findings_are_trained_and_predicted_one_by_one(finding_by_finding: Run) -> None:
    predictions = finding_by_finding.predictions("test")
    assert predictions["target_effusion"].equals(predictions["target_abnormal"].rename("target_effusion"))
    assert predictions["target_nodule"].isna().any()
    assert predictions["probability_hernia"].between(0, 1).all()
    assert "probability_abnormal" not in predictions
    assert pd.read_csv(finding_by_finding.folder / "metrics.csv")["val/auroc"].notna().all()


def test_logits_are_fp32_also_where_the_network_computes_in_bf16(finding_by_finding: Run) -> None:
    logits = finding_by_finding.predictions("test").filter(like="logit_").to_numpy()
    assert (logits != torch.from_numpy(logits.copy()).bfloat16().float().numpy()).mean() > 0.8


@pytest.mark.slow
def test_a_compiled_backbone_trains_the_same_model_under_the_same_names(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    same = ("model=cnn_lstm", "model.dropout=0", "model.backbone.widths=[4,8]", "trainer.max_epochs=3")
    plain = trained(configured(tmp_path / "plain", table, *same, "trainer.compile=false"))
    compiled = trained(configured(tmp_path / "compiled", table, *same, "trainer.compile=true"))
    assert torch._dynamo.utils.counters["frames"]["ok"] >= 2  # training and validation, at least
    assert compiled.environment["compiled"]
    assert not plain.environment["compiled"]
    assert weights(compiled).keys() == weights(plain).keys()
    losses = [pd.read_csv(run.folder / "metrics.csv")["train/loss"] for run in (plain, compiled)]
    assert np.allclose(*losses, atol=2e-3)


@pytest.mark.parametrize("sequence", ["rows", "visits"])
def test_memory_is_kept_while_a_model_trains_and_predicts_batches_of_one_size(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sequence: str
) -> None:
    kept, kept_in = [False], {}

    @contextmanager
    def memory_kept() -> Iterator[None]:
        kept[0] = True
        yield
        kept[0] = False

    def step(*_: object, name: str) -> dict[str, float]:
        kept_in[name] = kept[0]
        return {}

    monkeypatch.setattr(hardware, "memory_kept", memory_kept)
    monkeypatch.setattr(fitting, "record", lambda *_: None)
    monkeypatch.setattr(Run, "best_loss", 0.5)
    for name in ("fit", "predict", "predict_degraded"):
        monkeypatch.setattr(fitting, name, partial(step, name=name))
    config = configured(tmp_path, table, "model=cnn_lstm", f"model.sequence={sequence}")
    with starting.start(config) as run:
        fitting.train(run)
    assert kept_in == dict.fromkeys(("fit", "predict", "predict_degraded"), sequence == "rows")
    assert not kept[0]
