"""A learning rate or a batch size is suggested before training, and no run comes of it."""

import logging
import signal
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.tuner import batch_size_scaling
from omegaconf import DictConfig

from lungdet.errors import InputError
from lungdet.models.classifier import Classifier
from lungdet.programs import train
from lungdet.runs.folder import find_runs
from lungdet.runs.identity import fingerprint
from lungdet.training import dashboards, suggesting
from lungdet.training.suggesting import suggest, tenth_of_lowest, unbiased
from tests.calling import call
from tests.fake_runs import write_run
from tests.runs.cut_runs import files
from tests.small_runs import configured


def searching(folder: Path, table: Path, *changes: str) -> DictConfig:
    return configured(folder, table, f"run_dir={folder}/search", "data.batch_size=8", "augment=none", *changes)


def test_a_tenth_of_the_learning_rate_of_the_lowest_loss_is_suggested() -> None:
    rates = np.geomspace(1e-6, 1, 100)
    loss = 0.7 - 0.2 * np.exp(-((np.log10(rates) + 2) ** 2)) + np.where(rates > 0.1, rates, 0)  # lowest at .01
    assert tenth_of_lowest(pd.DataFrame({"learning_rate": rates, "loss": loss})) == pytest.approx(1e-3, rel=0.15)


def test_a_loss_that_does_not_fall_suggests_nothing_however_low_its_first_values_are() -> None:
    loss = 0.7 + 0.01 * np.random.default_rng(0).standard_normal(100)
    loss[:5] = 0.3
    assert tenth_of_lowest(pd.DataFrame({"learning_rate": np.geomspace(1e-6, 1, 100), "loss": loss})) is None


def test_the_smoothed_loss_of_a_loss_that_stays_is_that_loss(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses are Lightning's: were they smoothed otherwise some day, this would tell."""
    step = Classifier.training_step
    monkeypatch.setattr(Classifier, "training_step", lambda self, *batch: 0 * step(self, *batch) + 0.5)
    tmp_path.joinpath("search").mkdir()
    with pytest.raises(InputError, match=r"no learning rate brought the loss down; give it more, .*num_training=24"):
        suggest(searching(tmp_path, table, "find=lr", "find.learning_rate.num_training=12"))
    losses = pd.read_csv(tmp_path / "search/learning_rate.csv")["loss"]
    assert len(losses) > 8
    assert np.allclose(losses, 0.5)
    assert not np.allclose(losses, unbiased(losses.to_numpy()))


def test_an_interrupted_search_says_so_and_ends_as_shells_expect(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells ignore in the background
    monkeypatch.setattr(Classifier, "training_step", lambda *_: signal.raise_signal(signal.SIGINT))
    tmp_path.joinpath("search").mkdir()
    with pytest.raises(SystemExit, match="130"):
        suggest(searching(tmp_path, table, "find=lr"))
    signal.signal(signal.SIGINT, before)
    assert "interrupted; nothing is suggested" in caplog.messages


def test_finding_a_learning_rate_leaves_a_curve_and_no_run(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys
) -> None:
    monkeypatch.setattr(suggesting, "FALL", 10.0)  # a dozen steps teach nothing
    tmp_path.joinpath("search").mkdir()
    logged, steps = {}, ["find.learning_rate.num_training=14", "trainer.max_epochs=1"]
    started = SimpleNamespace(log=logged.update, summary={})
    monkeypatch.setattr(dashboards, "connected", lambda identity: nullcontext(logged.update(identity) or started))
    with caplog.at_level(logging.INFO, "lungdet.training.suggesting"):
        rate = suggest(searching(tmp_path, table, "find=lr", *steps, "logger=wandb"))
    assert f"model.learning_rate={rate}" in caplog.text
    assert "it/s" not in capsys.readouterr().err  # the tuner's bar, which is for terminals
    left = {"learning_rate.csv", "learning_rate.png"}
    assert {path.name for path in (tmp_path / "search").iterdir()} == left
    assert find_runs(tmp_path) == []
    assert (logged["job_type"], logged["tags"], logged["config"]["model"]["name"]) == ("find", ["cnn"], "cnn")
    points = logged["find/learning_rate"].table.get_dataframe()
    pd.testing.assert_frame_equal(points, pd.read_csv(tmp_path / "search/learning_rate.csv"))
    assert len(points) == 14  # an epoch has nine
    assert started.summary == {"learning_rate": rate}


def test_the_batch_size_that_is_suggested_is_the_largest_that_memory_takes(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step = Classifier.training_step

    def short_of_memory(self: Classifier, batch: dict, index: int) -> object:
        if len(batch["image"]) > 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return step(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", short_of_memory)
    monkeypatch.setattr(batch_size_scaling, "garbage_collection_cuda", lambda: None)  # of all tests' objects, each time
    config = searching(tmp_path, table, "find=batch_size", "find.batch_size.mode=power")
    tmp_path.joinpath("search").mkdir()
    with pytest.raises(InputError, match=r"find=batch_size: .* this is a CPU.* set data.batch_size"):
        suggest(config)
    monkeypatch.setattr(suggesting, "require_gpu", lambda device: None)
    with caplog.at_level(logging.INFO, "lungdet.training.suggesting"):
        size = suggest(config)
    assert size == 4  # doubled from 2 on
    tried = pd.read_csv(tmp_path / "search/batch_size.csv")
    assert tried["batch_size"].tolist() == [8, 1, 2, 4, 8]  # the first trial is of the configured size
    assert tried["memory_bytes"].isna().tolist() == [True, False, False, False, True]
    assert (tmp_path / "search/batch_size.png").is_file()
    assert f"data.batch_size={size}" in caplog.text


@pytest.mark.parametrize(
    "wrong", ["lr learning_rate.num_training=10", "lr learning_rate.min_lr=1", "batch_size batch_size.mode=up"]
)
def test_what_no_search_can_be_made_with_is_refused_by_its_key(wrong: str, table: Path, tmp_path: Path) -> None:
    choice, _, value = wrong.partition(" ")
    with pytest.raises(InputError, match=rf"find\.{value}: .* needed"):
        suggest(searching(tmp_path, table, f"find={choice}", f"find.{value}"))


@pytest.mark.parametrize("key", ["unfreeze_at=1", "rate_factor=0.1", "layer_decay=0.5"])
def test_one_learning_rate_is_suggested_only_where_all_layers_have_it(key: str, table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"find=lr: it would have all layers learn alike"):
        suggest(searching(tmp_path, table, "find=lr", f"model.backbone.{key}"))


def test_a_search_that_is_refused_leaves_no_folder_and_a_run_as_it_is(table: Path, tmp_path: Path) -> None:
    words = [f"outputs={tmp_path}", "data=table", f"data.table={table}", "find=lr"]
    done = call(train, *words, "resume=x")
    assert "find and resume=x: " in done.stderr
    assert not (tmp_path / "runs").is_dir() or not any((tmp_path / "runs").iterdir())
    run = write_run(tmp_path / "run")
    before = files(run)
    done = call(train, *words, f"hydra.run.dir={run}")
    assert f"find: {run} holds a run already" in done.stderr
    assert files(run).keys() - {str(run / "train.log")} == before.keys()


def test_neither_a_run_nor_another_search_lies_in_a_searchs_folder(table: Path, tmp_path: Path) -> None:
    words = [[], ["find=lr"], ["find=lr", "find.learning_rate.num_training=12"], ["find=batch_size"]]
    names = [train.computes(_root_=searching(tmp_path, table, *several)) for several in words]
    assert len({*names}) == len(names)
    assert names[0] == fingerprint(searching(tmp_path, table, "find=lr"))[:8]
    assert names[1].startswith("find_learning_rate_")


def test_what_goes_on_or_computes_on_several_devices_finds_nothing(table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="find and resume=outputs/runs/a: a run that goes on keeps what it has"):
        suggest(searching(tmp_path, table, "find=lr", "resume=outputs/runs/a"))
    with pytest.raises(InputError, match=r"find and trainer.devices=2: .* say trainer.devices=1"):
        suggest(searching(tmp_path, table, "find=lr", "trainer.devices=2", "trainer.accelerator=cpu"))
