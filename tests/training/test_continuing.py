"""A run that was cut continues as if it had not been cut, and a finished one does only what is asked anew."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import pytest
import torch

from lungdet.errors import RunError
from lungdet.models.backbone import Backbone
from lungdet.models.classifier import Classifier
from lungdet.runs.folder import Run, load_run
from lungdet.training import callbacks, fitting, recording
from lungdet.training.averaging import LEARNING
from lungdet.training.wandb import settings_of
from tests.small_runs import configured, trained, weights

EVERY_SECOND, ACCUMULATED = "+trainer.check_val_every_n_epoch=2", "trainer.accumulate_grad_batches=2"
DEGRADED = ("degrade=standard", "degrade.noise=[0,40]", "degrade.blur=[3]", "degrade.exposure=[1]")


@pytest.fixture(scope="module")
def once(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A CNN of one epoch."""
    return trained(configured(tmp_path_factory.mktemp("once"), table, "trainer.max_epochs=1"))


def copied(run: Run, folder: Path) -> Run:
    return load_run(shutil.copytree(run.folder, folder))


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
    assert counts.to_dict() == {(kind, level): len(tested) for kind, steps in levels.items() for level in steps}
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
            expected, reached = weights(whole, which, of), weights(resumed, which, of)
            assert all(torch.equal(tensor, reached[name]) for name, tensor in expected.items())
    assert after["epoch"][after["val/loss"].notna()].tolist() == validated
    assert resumed.environment["best_epoch"] in validated


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
    elsewhere = Path(shutil.copytree(table.parent, tmp_path / "moved"))  # with their times
    words = (
        f"resume={stopped.folder}", f"trainer.max_epochs={epochs + 2}", "trainer.early_stopping=50",
        "trainer.gradient_clip_val=0.25", "trainer.compile=true", "trainer.accelerator=cpu", "data.num_workers=1",
        "data.loader=workers", f"data.root={elsewhere}", f"data.store={tmp_path}/store", "logger=wandb",
    )  # fmt: skip
    options = {}

    def note(patience: callbacks.Patience, trainer: lightning.Trainer, model: Classifier) -> None:
        data = trainer.datamodule
        options["trainer"] = (trainer.gradient_clip_val, trainer.accelerator.name(), patience.patience)
        options["data"] = (data.serving.workers, data.serving.loader, data.root, data.store.folder.parent)

    @contextmanager
    def dashboard(run: Run, _: object) -> Iterator[None]:
        options["logger"] = settings_of(run.config.logger) is not None
        yield

    monkeypatch.setattr(fitting, "dashboard", dashboard)
    monkeypatch.setattr(callbacks.Patience, "on_train_start", note)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/g++")
    monkeypatch.setattr(Backbone, "compile", lambda _: options.update(compiled=True))  # a minute
    more = trained(configured(tmp_path, table, *words), *words)
    assert options == {
        "trainer": (0.25, "cpu", 50),
        "data": (1, "workers", elsewhere, tmp_path / "store"),
        "logger": True,
        "compiled": True,
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
