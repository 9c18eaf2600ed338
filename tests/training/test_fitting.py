"""train.py leaves a whole run folder, continues a cut run as if it had not been cut, and refuses what cannot be."""

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf
from torch.optim.swa_utils import update_bn

import evaluate
import train
from lungdet.data.serving.views import views
from lungdet.errors import InputError, RunError
from lungdet.evaluation.statistics import metrics
from lungdet.machine import hardware
from lungdet.machine.commands import override
from lungdet.models.classifier import Classifier
from lungdet.models.cnn_lstm import CNNLSTM
from lungdet.runs import identity, starting
from lungdet.runs.folder import Run, find_runs, load_run
from lungdet.training import callbacks, fitting, recording
from lungdet.training.averaging import LEARNING
from lungdet.training.checkpoints import Checkpoints
from lungdet.training.predicting import predict_views, score
from lungdet.training.trainer import build_trainer
from lungdet.training.wandb import settings_of
from tests.calling import CHECKOUT, output

EVERY_SECOND, ACCUMULATED = "+trainer.check_val_every_n_epoch=2", "trainer.accumulate_grad_batches=2"


def small(folder: Path, table: Path) -> list[str]:
    """Words for a run in fp32 and without loader processes, so that two runs can be equal to the last bit."""
    sizes = ["data.image_size=32", "data.batch_size=16", "data.num_workers=0", "trainer.precision=32-true"]
    choices = ["data=table", f"data.table={table}", *sizes, "trainer.max_epochs=3", "logger=csv"]
    return [*choices, override("outputs", folder)]


def configured(folder: Path, table: Path, *changes: str) -> DictConfig:
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        return compose("train", [*small(folder, table), f"run_dir={folder}/runs/new", *changes])


def trained(config: DictConfig, *overrides: str) -> Run:
    with starting.start(config, overrides) as run:
        fitting.train(run)
    return load_run(run.folder)


def weights(run: Run, which: str = "last", of: str = "state_dict") -> dict[str, torch.Tensor]:
    return torch.load(run.checkpoint(which), weights_only=True)[of]


@pytest.fixture(scope="module")
def sweep(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Run]]:
    """What the command prints that trains both models, and their runs, the CNN-LSTM's first."""
    outputs = tmp_path_factory.mktemp("sweep") / "a b=c [1] ü $x 'q'"
    printed = output(train, "-m", "model=cnn,cnn_lstm", *small(outputs, table))
    return printed, find_runs(outputs / "sweeps")


@pytest.fixture(scope="module")
def run(sweep: tuple[str, list[Run]]) -> Run:
    return sweep[1][0]


@pytest.fixture(scope="module")
def once(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A CNN of one epoch."""
    return trained(configured(tmp_path_factory.mktemp("once"), table, "trainer.max_epochs=1"))


def copied(run: Run, folder: Path) -> Run:
    return load_run(shutil.copytree(run.folder, folder))


def test_the_run_folder_holds_what_later_commands_need(run: Run) -> None:
    assert run.finished
    facts = run.environment
    assert (facts["data"]["images"], facts["data"]["patients"], facts["data"]["patients_known"]) == (96, 48, True)
    assert facts["split"]["parts"].keys() == {"train", "val", "test"}
    assert facts["epochs"] == 3
    assert min(facts["fit_seconds"], facts["images_per_second"], facts["peak_memory_bytes"], facts["parameters"]) > 0
    table = pd.read_csv(run.folder / "metrics.csv")
    assert table["epoch"].tolist() == [0, 1, 2]
    measured = {f"val/{name}" for name in ("loss", "accuracy", "precision", "recall", "f1", "auroc")}
    assert measured | {"train/loss", "learning_rate", "images_per_second"} <= set(table.columns)
    assert facts["best_epoch"] == table["val/loss"].idxmin()
    assert not OmegaConf.to_yaml(run.config).count("${")


def test_predictions_cover_their_parts_once_and_the_split_file_says_the_same(run: Run) -> None:
    split = pd.read_csv(run.folder / "split.csv").set_index("image_id")["split"]
    for part in ("val", "test"):
        predictions = run.predictions(part)
        assert sorted(predictions["image_id"]) == sorted(split.index[split == part])
        assert predictions["target_abnormal"].equals(
            predictions["patient_id"].str.extract(r"(\d+)$")[0].astype(int).mod(2).astype("float32")
        )
        assert predictions["logit_abnormal"].dtype == predictions["probability_abnormal"].dtype == np.float64


def test_evaluation_finds_the_numbers_that_torchmetrics_found_in_training(run: Run) -> None:
    best = pd.read_csv(run.folder / "metrics.csv").loc[run.environment["best_epoch"]]
    predictions = run.predictions("val")
    y, p = predictions["target_abnormal"], predictions["probability_abnormal"]
    ours = {name: getattr(metrics, name) for name in ("accuracy", "precision", "recall", "f1")}
    for name, function in ours.items():
        assert function(y, p, 0.5) == pytest.approx(best[f"val/{name}"], abs=1e-6), name
    assert metrics.auroc(y, p) == pytest.approx(best["val/auroc"], abs=1e-6)


def test_evaluation_of_the_test_part_agrees_with_torchmetrics(run: Run) -> None:
    predictions = run.predictions("test")
    y, p = predictions["target_abnormal"], predictions["probability_abnormal"]
    for name in ("accuracy", "precision", "recall", "f1"):
        assert getattr(metrics, name)(y, p, 0.5) == pytest.approx(run.environment["test"][name], abs=1e-6), name
    assert metrics.auroc(y, p) == pytest.approx(run.environment["test"]["auroc"], abs=1e-6)


def test_batch_norms_statistics_are_estimated_for_the_weights_that_are_validated(run: Run) -> None:
    saved, learning = weights(run), weights(run, of=LEARNING)
    model = fitting.build_model(run)
    model.load_state_dict(saved)
    data = fitting.build_data(run.config, model)
    data.setup()
    batches, expected = [batch["image"] for batch in data.sample_dataloader(256)], {}
    for images in batches:
        update_bn([images], model.backbone)
        share = len(images) / sum(map(len, batches))
        for name, value in model.backbone.state_dict(prefix="backbone.").items():
            if "running" in name:
                expected[name] = expected.get(name, 0) + share * value
    assert len(batches) > 1
    for name, value in expected.items():
        assert torch.allclose(saved[name], value, rtol=1e-3, atol=1e-4), name
        assert not torch.allclose(learning[name], value, rtol=1e-3, atol=1e-4), name
    counts = {int(value) for name, value in saved.items() if name.endswith("tracked")}
    assert counts == {3 * len(data.train_dataloader())}, "training's batches, and no others"


def test_each_of_two_processes_estimates_from_the_batches_of_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    data = fitting.build_data(run.config, fitting.build_model(run))
    data.setup()
    alone = [batch["row"].tolist() for batch in data.sample_dataloader(33)]
    assert [len(rows) for rows in alone] == [16, 16, 2]  # a single image may have no statistics
    assert {row for rows in alone for row in rows} <= {*data.rows("train")}
    data.batch_size = 8
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        assert [batch["row"].tolist() for batch in data.sample_dataloader(33)] == alone


def test_what_learns_is_the_same_whatever_is_validated(run: Run, table: Path, tmp_path: Path) -> None:
    plain = weights(trained(configured(tmp_path, table, "model=cnn_lstm", "trainer.averaging=null")))
    assert all(torch.equal(plain[name], value) for name, value in weights(run, of=LEARNING).items())


def by_hand(run: Run, predictions: pd.DataFrame) -> np.ndarray:
    """The log-odds that a run's best weights give the images as they lie in the store."""
    model = fitting.build_model(run).eval()
    data = fitting.build_data(run.config, model)
    data.setup()
    model.load_state_dict(weights(run, "best"))
    rows = [data.manifest["image_id"].tolist().index(name) for name in predictions["image_id"]]
    with torch.no_grad():
        images = torch.from_numpy(data.store.images[rows]).unsqueeze(1) / 255
        logits = model(images, torch.ones(len(rows), dtype=torch.long)).numpy()
    return logits[:, 1] - logits[:, 0]


def test_the_views_of_an_image_are_averaged_in_validation_and_test_and_the_report_says_so(
    run: Run, tmp_path: Path
) -> None:
    model = fitting.build_model(run).eval()
    model.load_state_dict(run.weights())
    data = fitting.build_data(run.config, model)
    data.prepare_data()
    store, ids = data.store.images, data.store.manifest["image_id"].tolist()
    asked = views(flip=True, shift=0.1)
    tables = predict_views(run, asked, ["val", "test"])
    for part, table in tables.items():
        images = [store[ids.index(image_id)] for image_id in table["image_id"]]
        stacked = np.stack([[view(image) for image in images] for view in asked]).astype(np.float32) / 255
        with torch.no_grad():
            logits = [model(torch.from_numpy(seen)[:, None], torch.ones(len(images), dtype=int)) for seen in stacked]
        assert table["logit_abnormal"].to_numpy() == pytest.approx(
            np.mean([(logit[:, 1] - logit[:, 0]).numpy() for logit in logits], axis=0), abs=1e-5
        )
        own = run.predictions(part).set_index("image_id").loc[table["image_id"], "logit_abnormal"]
        assert abs(table["logit_abnormal"].to_numpy() - own.to_numpy()).max() > 1e-3
    words = ["draws=100", "efficiency=false", "views.flip=true", "views.shift=0.1"]
    output(evaluate, override("runs", run.folder), f"out={tmp_path}", *words)
    assert not (run.folder / "thresholds.json").exists()  # they are for who predicts an image as it is
    assert "the mean over 10 views of it (mirrored, moved by 0.1 of the side)" in (tmp_path / "report.md").read_text()


def test_a_sample_of_whole_training_patients_is_predicted_without_augmentation(run: Run) -> None:
    split = pd.read_csv(run.folder / "split.csv")
    training = split[split["split"] == "train"]
    seen = run.predictions("train")
    assert seen["image_id"].is_unique
    assert set(seen["image_id"]) == set(training.loc[training["patient_id"].isin(seen["patient_id"]), "image_id"])
    assert abs(len(seen) - len(run.predictions("val"))) <= 2
    assert seen["target_abnormal"].nunique() == 2
    assert seen.attrs["part"] == run.environment["split"]["parts"]["train"]["hash"]
    assert np.allclose(seen["logit_abnormal"], by_hand(run, seen), atol=1e-5)


def test_every_part_is_predicted_with_the_best_weights_where_the_last_are_others(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil_the_second_epoch(model: CNNLSTM) -> None:
        if model.current_epoch:
            model.head[-1].bias.data[0] = 1000  # everything is normal, beyond doubt

    monkeypatch.setattr(CNNLSTM, "on_train_epoch_start", spoil_the_second_epoch)
    run = trained(configured(tmp_path, table, "model=cnn_lstm", "trainer.max_epochs=2"))
    assert run.environment["best_epoch"] == 0, "the last epoch's weights would do as well"
    for part in ("train", "val", "test"):
        found = run.predictions(part)
        assert np.allclose(found["logit_abnormal"], by_hand(run, found), rtol=1e-4, atol=1e-4), part


def test_the_store_that_a_run_read_is_recorded(run: Run) -> None:
    store = Path(run.environment["data"]["store"])
    assert store.is_absolute()
    assert (store / "images.npy").is_file()


DEGRADED = ("degrade=standard", "degrade.noise=[0,40]", "degrade.blur=[3]", "degrade.exposure=[1]")


def test_a_finished_run_predicts_degraded_test_images_without_training_on(
    table: Path, tmp_path: Path, monkeypatch
) -> None:
    weighed = ("model.class_weights=balanced", "data.train_prevalence=0.25")  # so that the test loss shows them
    first = trained(configured(tmp_path, table, "trainer.max_epochs=1", *weighed))
    assert not (first.folder / "predictions" / "degraded_test.parquet").exists()
    before = {name: (first.folder / name).read_bytes() for name in ("checkpoints/last.ckpt", "metrics.csv")}
    tested, metrics_of_test = first.predictions("test"), first.environment["test"]
    asked = (f"resume={first.folder}", *DEGRADED, "data.num_workers=1")
    with monkeypatch.context() as patch:
        patch.setattr("lightning.Trainer.fit", lambda *_, **__: pytest.fail("trained on"))
        again = trained(configured(tmp_path, table, *asked), *asked)
    assert again.finished
    assert again.config.degrade.noise == [0, 40]
    assert again.environment["test"] == metrics_of_test
    assert all((first.folder / name).read_bytes() == content for name, content in before.items())
    pd.testing.assert_frame_equal(again.predictions("test"), tested)

    degraded = again.predictions("degraded_test")
    assert list(degraded) == ["image_id", "degradation", "level", "logit_abnormal", "probability_abnormal"]
    counts = degraded.groupby(["degradation", "level"]).size()
    levels = {"noise": [0.0, 40.0], "blur": [3.0], "exposure": [1.0], "compression": [5.0, 15.0, 50.0]}
    assert counts.to_dict() == {(kind, level): len(tested) for kind, some in levels.items() for level in some}
    assert degraded.attrs["part"] == tested.attrs["part"]
    for kind, level, same in (("noise", 0, True), ("exposure", 1, True), ("noise", 40, False), ("blur", 3, False)):
        rows = degraded[(degraded["degradation"] == kind) & (degraded["level"] == level)]
        assert rows["image_id"].tolist() == tested["image_id"].tolist()
        close = np.allclose(rows["logit_abnormal"].to_numpy(), tested["logit_abnormal"].to_numpy(), atol=1e-6)
        assert close == same, (kind, level)


def test_a_finished_run_asked_for_more_epochs_and_degraded_images_trains_on(
    once: Run, table: Path, tmp_path: Path
) -> None:
    asked = (f"resume={copied(once, tmp_path / 'run').folder}", *DEGRADED, "trainer.max_epochs=2")
    more = trained(configured(tmp_path, table, *asked), *asked)
    assert more.environment["epochs"] == 2
    assert (more.folder / "predictions" / "degraded_test.parquet").is_file()


def test_what_was_trained_on_is_named_and_the_test_part_is_the_same(table: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(table)
    rows["dataset"] = np.where(rows["patient_id"] < 24, "north", "south")
    rows.to_csv(table.parent / "two.csv", index=False)
    mine = table.parent / "two.csv"
    small = ("trainer.max_epochs=1", "data.train_prevalence=0.25")
    one, both = (
        trained(configured(tmp_path / str(i), mine, *small, *more))
        for i, more in enumerate([["data.train_on=north"], ["data.train_on=[south,north]"]])
    )
    assert one.environment["split"]["name"] == "random, trained on north, 0.25 abnormal in train"
    assert both.environment["split"]["name"] == "random, trained on north+south, 0.25 abnormal in train"
    assert set(one.predictions("train")["dataset"]) == set(one.predictions("val")["dataset"]) == {"north"}
    assert set(one.predictions("test")["dataset"]) == {"north", "south"}
    parts = [run.environment["split"]["parts"] for run in (one, both)]
    assert parts[0]["test"]["hash"] == parts[1]["test"]["hash"]
    for part in parts:
        assert part["train"]["abnormal"] == round(0.25 * part["train"]["labelled"])


def test_a_run_whose_fit_is_done_only_predicts_when_resumed(once: Run, table: Path, tmp_path: Path) -> None:
    cut = copied(once, tmp_path / "runs/cut")
    cut.record(finished=None)
    shutil.rmtree(cut.folder / "predictions")
    last = cut.checkpoint("last").stat().st_mtime_ns
    resumed = trained(configured(tmp_path, table, "trainer.max_epochs=1", "resume=auto"))
    assert (resumed.folder, resumed.finished) == (cut.folder, True)
    assert resumed.checkpoint("last").stat().st_mtime_ns == last
    pd.testing.assert_frame_equal(resumed.predictions("test"), once.predictions("test"))


def test_a_moved_run_keeps_its_best_epoch_when_continued(
    once: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(once, tmp_path / "folder").folder
    more = (f"resume={folder}", "trainer.max_epochs=2")
    spoilt = torch.tensor([1000.0, 0.0])  # everything is normal, beyond doubt
    monkeypatch.setattr(Classifier, "on_train_epoch_start", lambda model: model.head[-1].bias.data.copy_(spoilt))
    whole = trained(configured(tmp_path, table, *more), *more)
    epochs = pd.read_csv(whole.folder / "metrics.csv")["val/loss"]
    assert torch.load(whole.checkpoint("best"), weights_only=True)["epoch"] == epochs.idxmin() == 0


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


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(table: Path, tmp_path: Path, monkeypatch) -> None:
    config = configured(tmp_path, table)
    with starting.start(config) as run:
        trainer = build_trainer(run, fitting.build_model(run), hardware.choose("32-true", "auto"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))  # TMPDIR is not needed
    save, path = trainer.strategy.checkpoint_io.save_checkpoint, run.folder / "checkpoints" / "last.ckpt"
    save({"epoch": 1}, path)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, unlimited[1]))  # as a disk that is full
    try:
        with pytest.raises(InputError, match=r"last.ckpt could not be written \(File too large\).*resume="):
            save({"epoch": 2, "weights": torch.zeros(10_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert torch.load(run.checkpoint("last"), weights_only=True) == {"epoch": 1}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_best_epoch_that_is_the_last_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints, best, last = Checkpoints(), tmp_path / "best.ckpt", tmp_path / "last.ckpt"
    for epoch, paths, once in ((0, (best, last), True), (1, (last,), False), (2, (best, last), True)):
        before = best.read_bytes() if epoch == 1 else None
        for path in paths:
            checkpoints.save_checkpoint({"epoch": epoch, "global_step": 7}, path)
        assert before in (None, best.read_bytes())
        assert torch.load(last, weights_only=True)["epoch"] == epoch
        assert best.samefile(last) is once
    monkeypatch.setattr(os, "link", lambda *_: exec("raise OSError"))  # a disk that has no second names
    for path in (best, last):
        checkpoints.save_checkpoint({"epoch": 3, "global_step": 8}, path)
    assert best.read_bytes() == last.read_bytes()
    assert not best.samefile(last)
    assert {path.name for path in tmp_path.iterdir()} == {"best.ckpt", "last.ckpt"}


def test_checkpoints_hold_weights_and_no_configuration(run: Run) -> None:
    checkpoint = torch.load(run.checkpoint("best"), weights_only=True)
    assert "hyper_parameters" not in checkpoint
    model = fitting.build_model(run)
    model.load_state_dict(checkpoint["state_dict"])


def test_the_best_checkpoint_is_the_epoch_of_the_lowest_validation_loss(run: Run) -> None:
    checkpoint = torch.load(run.checkpoint("best"), weights_only=True)
    assert checkpoint["epoch"] == run.environment["best_epoch"]
    assert torch.load(run.checkpoint("last"), weights_only=True)["epoch"] == 2


@pytest.mark.parametrize(
    "changes",
    [
        ("model.learning_rate=0.05", "schedule.patience=0", "model.warm_up=0.5", EVERY_SECOND),
        ("optimizer=sgd", "schedule=onecycle", "model.warm_up=1.5", "trainer.averaging=null", ACCUMULATED),
        ("optimizer=adamw", "schedule=cosine", "trainer.precision=bf16-mixed", "model.backbone.unfreeze_at=1"),
    ],
)
def test_a_cut_run_resumed_ends_in_the_same_weights_as_one_that_was_not_cut(
    table: Path, tmp_path: Path, monkeypatch, changes: tuple[str, ...]
) -> None:
    changes = ("model=cnn_lstm", "model.backbone.widths=[4,8]", "trainer.max_epochs=4", *changes)
    whole = trained(configured(tmp_path / "whole", table, *changes))
    config = configured(tmp_path / "cut", table, *changes, "resume=auto")
    write = recording.Record._write

    def cut_after_two_epochs(self, row: dict) -> None:
        write(self, row)
        if row["epoch"] == 2:
            raise ConnectionResetError("the machine goes away")

    with monkeypatch.context() as patch:
        patch.setattr(recording.Record, "_write", cut_after_two_epochs)
        with pytest.raises(ConnectionResetError):
            trained(config)
    resumed = trained(config)
    assert resumed.folder == Path(config.run_dir)
    before, after = pd.read_csv(whole.folder / "metrics.csv"), pd.read_csv(resumed.folder / "metrics.csv")
    same = ["epoch", "train/loss", "val/loss", "learning_rate", "val/auroc"]
    pd.testing.assert_frame_equal(before[same], after[same])
    validated = [1, 3] if EVERY_SECOND in changes else [0, 1, 2, 3]
    assert before["learning_rate"].nunique() > 1
    for which in ("best", "last"):
        for of in ("state_dict", LEARNING) if whole.config.trainer.averaging else ("state_dict",):
            expected, found = weights(whole, which, of), weights(resumed, which, of)
            assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert after["epoch"][after["val/loss"].notna()].tolist() == validated
    assert resumed.environment["best_epoch"] in validated


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


def test_the_hashes_of_the_split_travel_with_checkpoint_and_predictions(run: Run) -> None:
    split = run.environment["split"]
    carried = torch.load(run.checkpoint("best"), weights_only=True)["TableDataModule"]
    assert carried["split"] == split["hash"]
    assert carried["parts"]["test"] == split["parts"]["test"]["hash"] == run.predictions("test").attrs["part"]


def test_a_run_is_not_continued_on_other_data(table: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(table)
    mine = table.parent / "changing.csv"
    rows.to_csv(mine, index=False)
    first = trained(configured(tmp_path, mine, "trainer.max_epochs=1"))
    more = ("trainer.max_epochs=2", f"resume={first.folder}")
    before = {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()}
    fewer, relabelled = rows[rows["patient_id"] > 5], rows.assign(abnormal=rows["abnormal"].where(rows.index > 1, 1))
    for change, changed in (("images", fewer), ("labels", relabelled)):
        changed.to_csv(mine, index=False)
        with pytest.raises(RunError, match=rf"{first.folder} is a run of other data: {change} \("):
            trained(configured(tmp_path, mine, *more), *more)
        assert {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()} == before


def test_what_a_continued_run_is_told_anew_takes_effect(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that early stopping ended, elsewhere now, in everything that may change but for what a test cannot have."""
    stopped = trained(
        configured(tmp_path, table, "model.learning_rate=3", "trainer.early_stopping=1", "trainer.max_epochs=9")
    )
    epochs = stopped.environment["epochs"]
    assert epochs < 9
    stopped.record(fitted=False, finished=None)  # cut as soon as that epoch was saved
    assert trained(configured(tmp_path, table, f"resume={stopped.folder}")).environment["epochs"] == epochs
    moved = Path(shutil.copytree(table.parent, tmp_path / "moved"))  # with their times
    words = (
        f"resume={stopped.folder}", f"trainer.max_epochs={epochs + 2}", "trainer.early_stopping=50",
        "trainer.gradient_clip_val=0.25", "trainer.compile=true", "trainer.accelerator=cpu", "data.num_workers=1",
        "data.loader=workers", f"data.root={moved}", f"data.store={tmp_path}/store", "logger=wandb",
    )  # fmt: skip
    seen = {}

    def note(patience: callbacks.Patience, trainer: lightning.Trainer, model: Classifier) -> None:
        data, compiling = trainer.datamodule, [x for x in trainer.callbacks if isinstance(x, callbacks.Compiling)]
        seen["trainer"] = (trainer.gradient_clip_val, trainer.accelerator.name(), len(compiling), patience.patience)
        seen["data"] = (data.serving.workers, data.serving.loader, data.root, data.store.folder.parent)
        trainer.callbacks.remove(*compiling)  # a minute

    @contextmanager
    def dashboard(run: Run, _: object) -> Iterator[None]:
        seen["logger"] = settings_of(run.config.logger) is not None
        yield

    monkeypatch.setattr(fitting, "dashboard", dashboard)
    monkeypatch.setattr(callbacks.Patience, "on_train_start", note)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/g++")
    more = trained(configured(tmp_path, table, *words), *words)
    assert seen == {
        "trainer": (0.25, "cpu", 1, 50),
        "data": (1, "workers", moved, tmp_path / "store"),
        "logger": True,
    }
    assert more.environment["epochs"] == epochs + 2
    assert more.environment["data"]["store"].startswith(f"{tmp_path}/store")
    assert more.config.trainer.early_stopping == 50


def test_the_same_seed_gives_the_same_run_and_another_seed_another(once: Run, table: Path, tmp_path: Path) -> None:
    same, other = (
        trained(configured(tmp_path / str(seed), table, "trainer.max_epochs=1", f"seed={seed}")) for seed in (0, 1)
    )
    assert all(torch.equal(value, weights(once)[name]) for name, value in weights(same).items())
    assert not all(torch.equal(value, weights(once)[name]) for name, value in weights(other).items())
    assert len({run.environment["split"]["hash"] for run in (once, same, other)}) == 1


def test_a_finished_run_scores_other_images_and_leaves_out_patients_it_knows(run: Run, table: Path, caplog) -> None:
    scored = score(run, run.config.data)
    test = run.predictions("test")
    assert sorted(scored["image_id"]) == sorted(test["image_id"])
    both = test.merge(scored, on="image_id")
    assert np.allclose(both["logit_abnormal_x"], both["logit_abnormal_y"], atol=1e-5)
    assert "are left out" in caplog.text


def test_scoring_images_prepared_otherwise_is_refused(run: Run) -> None:
    other = OmegaConf.merge(run.config.data, {"image_size": 64})
    with pytest.raises(RunError, match=r"data\.image_size=32, and data\.image_size=64"):
        score(run, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("trainer.max_epochs=0", "trainer.max_epochs=0: at least one epoch"),
        ("data.limit=0", "data.limit=0"),
        ("data.image_size=8", "data.image_size=8: model.backbone takes no images of this size"),
        ("+trainer.max_steps=7", "trainer.max_steps=7: .* use trainer.max_epochs"),
        ("+trainer.limit_val_batches=0", "trainer.limit_val_batches=0: .* use data.limit"),
        ("+trainer.val_check_interval=0.5", "trainer.val_check_interval=0.5: .* use trainer.check_val_every_n_epoch"),
        ("+trainer.fast_dev_run=true", "trainer.fast_dev_run=True: .* use experiment=smoke"),
        ("+trainer.check_val_every_n_epoch=4", "trainer.check_val_every_n_epoch=4: at least one epoch"),
        ("trainer.precision=16-mixed", "trainer.precision=16-mixed: a processor does not compute fp16"),
        ("trainer.devices=0", "trainer.devices=0: at least one"),
        ("trainer.num_nodes=2", "trainer.num_nodes=2: several machines"),
        ("data.fractions=[1,0,0]", "data.fractions="),
        ("data.batch_size=0", "data.batch_size=0"),
        ("data.split=by_image", "data.split=by_image: one of random, official"),
        ("data.split=official", "without an official split"),
        ("data.resize=stretch", "stretch"),
        ("model.sequence=diagonals", "model.sequence=diagonals"),
        ("augment.rotation=720", "augment.rotation=720"),
        ("data.train_on=elsewhere", "data.train_on="),
        ("data.train_prevalence=1.5", "data.train_prevalence=1.5"),
        ("+degrade.noise=[-1]", "degrade.noise="),
        ("resume=nowhere", "nowhere: no such folder"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(table: Path, tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        trained(configured(tmp_path, table, "model=cnn_lstm", change))


def test_a_misspelt_option_is_refused_by_name() -> None:
    with (
        initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"),
        pytest.raises(ConfigCompositionException, match=r"trainer\.max_epoch"),
    ):
        compose("train", ["trainer.max_epoch=3"])


def test_a_quick_try_takes_whole_patients_of_both_classes(once: Run) -> None:
    config = OmegaConf.merge(once.config, {"data": {"limit": 40}})
    data = fitting.build_data(config, fitting.build_model(once))
    data.setup()
    facts = data.describe()
    assert (facts["images"], facts["patients"], facts["limit"]) == (40, 20, 40)
    assert (data.manifest.groupby("abnormal")["patient_id"].nunique() == 10).all()


def test_a_run_is_not_tested_on_what_its_published_weights_have_seen(table: Path, tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "file.pth")
    weights = ["model/backbone=timm", "model.backbone.name=test_resnet", f"model.backbone.weights={tmp_path}/file.pth"]
    with pytest.raises(RunError, match=r"file\.pth: these weights have learnt from table, .* of this run's test part"):
        trained(configured(tmp_path, table, *weights, "model.backbone.seen=[table]"))
    assert not (tmp_path / "runs/new").exists()


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


def test_running_statistics_are_those_of_the_first_batch_after_the_first_step(table: Path, tmp_path: Path) -> None:
    config = configured(tmp_path, table, "trainer.max_epochs=1", "augment=none", "+trainer.limit_train_batches=1")
    with starting.start(config) as run:
        model = fitting.build_model(run)
        data = fitting.build_data(run.config, model)
        data.setup()
        first = []
        model.backbone[0][0].register_forward_hook(lambda _, __, output: first.append(output.detach()))
        build_trainer(run, model, hardware.choose("32-true", "auto")).fit(model, data)
    assert torch.allclose(model.backbone[0][1].running_mean, first[0].mean((0, 2, 3)), atol=1e-6)


def test_composing_a_configuration_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'lightning', 'pandas', 'albumentations', 'wandb', 'timm'}"
    code = f"import sys, train; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True)


def test_the_front_door_trains_from_the_command_line(sweep: tuple[str, list[Run]]) -> None:
    printed, runs = sweep
    assert "precision" in printed
    hashes = [identity.fingerprint(run.config)[:8] for run in runs]
    assert [run.name for run in runs] == [f"cnn_lstm_seed0_{hashes[0]}", f"cnn_seed0_{hashes[1]}"]
    assert all(run.finished for run in runs)
    pasted = re.findall(r"evaluate with: python evaluate\.py (.*)", printed)[0]
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {pasted}"], capture_output=True, text=True, check=True)
    assert str(runs[1].folder) in output(evaluate, *words.stdout.splitlines(), "--cfg", "job", "--package", "runs")


@pytest.mark.slow
def test_jobs_of_a_process_of_its_own_are_runs_of_their_own_on_a_dashboard(table: Path, tmp_path: Path) -> None:
    words = ["-m", "model=cnn,cnn_lstm", *small(tmp_path, table), "trainer.max_epochs=1", "logger=wandb"]
    done = subprocess.run([sys.executable, "train.py", *words], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"evaluate with: {sys.executable} evaluate.py " in done.stdout
    assert [run.finished for run in find_runs(tmp_path)] == [True, True]
    assert len(list(tmp_path.glob("sweeps/*/*/wandb/offline-run-*"))) == 2


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


def test_a_run_predicts_from_what_is_not_the_lungs_too(run: Run) -> None:
    guesses = pd.read_parquet(run.folder / "predictions" / "shortcuts_test.parquet")
    assert {"thumbnail", "border"} <= set(guesses["shortcut"])
    assert set(guesses["image_id"]) == set(run.predictions("test")["image_id"])


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
    kept, seen = [False], {}

    @contextmanager
    def memory_kept() -> Iterator[None]:
        kept[0] = True
        yield
        kept[0] = False

    def step(*_: object, name: str) -> dict[str, float]:
        seen[name] = kept[0]
        return {}

    monkeypatch.setattr(hardware, "memory_kept", memory_kept)
    monkeypatch.setattr(fitting, "record", lambda *_: None)
    monkeypatch.setattr(Run, "best_loss", 0.5)
    for name in ("fit", "predict", "predict_degraded"):
        monkeypatch.setattr(fitting, name, partial(step, name=name))
    config = configured(tmp_path, table, "model=cnn_lstm", f"model.sequence={sequence}")
    with starting.start(config) as run:
        fitting.train(run)
    assert seen == dict.fromkeys(("fit", "predict", "predict_degraded"), sequence == "rows")
    assert not kept[0]


def test_a_backbone_that_would_never_learn_is_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unfreeze_at=3: training ends before, after trainer\.max_epochs=3"):
        trained(configured(tmp_path, table, "model.backbone.unfreeze_at=3"))


@pytest.mark.parametrize("wrong", ["trainer.devices=two", "trainer.accelerator=tpu"])
def test_what_lightning_refuses_is_told_in_a_sentence(table: Path, tmp_path: Path, wrong: str) -> None:
    with pytest.raises(InputError, match=r"Lightning refuses what trainer\.\* says"):
        trained(configured(tmp_path, table, wrong))


def test_compiling_is_left_to_cuda_gpus_and_long_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    many, few = 2_000_000, 1_000_000
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    assert not hardware.compiles("auto", many, "cpu")
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "g++" else None)
    assert hardware.compiles(True, few, "cpu")
    monkeypatch.setenv("CXX", "clang++")
    with pytest.raises(InputError, match=r"trainer.compile=True: torch needs the compiler g\+\+"):
        hardware.compiles(True, few, "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/cc")
    assert hardware.compiles("auto", many)
    assert not hardware.compiles("auto", few)
    assert not hardware.compiles(False, many)
    assert not hardware.compiles("auto", many, "cpu")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert not hardware.compiles("auto", many)
