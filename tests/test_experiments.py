"""Every experiment says what it asks and costs, and runs through its own command at its smoke size."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from conftest import CHECKOUT
from hydra import compose, initialize_config_dir
from hydra.types import RunMode
from omegaconf import DictConfig

from lungdet.data.degrade import degradations
from lungdet.runs import Run, find_runs

EXPERIMENTS = sorted(path.stem for path in (CHECKOUT / "conf/experiment").glob("*.yaml"))
ON_REAL_DATA = ("controls", "cross_dataset", "imbalance", "learning_curve", "paper", "robustness")
REPORTED = (*ON_REAL_DATA, "temporal")
SOURCES = ("chestxray14", "montgomery", "shenzhen")
PARTS_OF_TRAIN = ("random", "random, 0.1 of train", "random, 0.25 of train", "random, 0.5 of train")
SPLITS = {
    "controls": {"random"},
    "cross_dataset": {f"random, trained on phantom-{source}" for source in SOURCES},
    "imbalance": {f"random, {share} abnormal in train" for share in (0.05, 0.1, 0.25, 0.5)},
    "learning_curve": set(PARTS_OF_TRAIN),
    "paper": {"random"},
    "robustness": {"random"},
    "temporal": {"random"},
}
MODELS = {
    "controls": "cnn,cnn_lstm,cnn_lstm_shuffled,cnn_lstm_frozen,cnn_mlp,pool,length_only",
    "temporal": "cnn,cnn_lstm,cnn_lstm_shuffled,cnn_mlp,pool,length_only",
}


def composed(*choices: str) -> DictConfig:
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        return compose("train", [*choices], return_hydra_config=True)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_opens_with_its_question_its_command_its_cost_and_what_is_expected(name: str) -> None:
    first, *lines = (CHECKOUT / f"conf/experiment/{name}.yaml").read_text().splitlines()
    header = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    assert first == "# @package _global_"
    headings = [line[2:11].strip() for line in header]
    assert [heading for heading in headings if heading] == ["Question", "Command", "Cost", "Expected"]


@pytest.mark.parametrize("name", ON_REAL_DATA)
def test_an_experiment_is_on_real_data_and_small_on_phantoms_by_the_same_word(name: str) -> None:
    whole, small = composed(f"experiment={name}"), composed(f"experiment=[{name},smoke]")
    assert whole.data._target_.endswith("CombinedDataModule")
    assert small.data._target_.endswith("PhantomDataModule")
    assert (whole.trainer.max_epochs, small.trainer.max_epochs) == (30, 2)
    assert small.logger.project is None
    for config in (whole, small):
        assert config.hydra.mode is RunMode.MULTIRUN
        assert config.hydra.callbacks.report._target_ == "lungdet.reporting.Report"
    params = whole.hydra.sweeper.params
    assert params.model == MODELS.get(name, "cnn,cnn_lstm")
    assert len(params.seed.split(",")) >= 3
    assert dict(small.hydra.sweeper.params) == {**params, "seed": "0"}


def test_the_temporal_experiment_starts_from_a_run_of_its_own_size_which_is_trained_first() -> None:
    whole, small = composed("experiment=temporal"), composed("experiment=[temporal,smoke]")
    for config in (whole, small):
        assert config.hydra.callbacks.first.folder == config.model.backbone.init_from
        assert config.hydra.callbacks.first.overrides["trainer.max_epochs"] == config.trainer.max_epochs
    assert whole.model.backbone.init_from != small.model.backbone.init_from


def test_neither_smoke_nor_demo_evaluates_by_itself() -> None:
    assert not composed("experiment=smoke").hydra.callbacks
    assert not composed("experiment=demo").hydra.callbacks


class Made(NamedTuple):
    name: str
    folder: Path
    runs: list[Run]
    said: str


@pytest.fixture(scope="module", params=REPORTED)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An experiment at its smoke size, by its own command."""
    outputs = tmp_path_factory.getbasetemp() / "experiments"  # phantoms are drawn once for all
    folder = outputs / request.param
    choices = [f"experiment=[{request.param},smoke]", f"outputs={outputs}", f"hydra.sweep.dir={folder}"]
    done = subprocess.run([sys.executable, "train.py", *choices], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return Made(request.param, folder, find_runs(folder), done.stdout + done.stderr)


@pytest.mark.slow
def test_every_run_of_an_experiment_is_finished_and_all_are_tested_on_the_same_images(made: Made) -> None:
    assert all(run.finished for run in made.runs)
    splits = [run.environment["split"] for run in made.runs]
    assert {split["name"] for split in splits} == SPLITS[made.name]
    models = MODELS.get(made.name, "cnn,cnn_lstm").split(",")
    assert len(made.runs) == len(models) * len(SPLITS[made.name])
    assert len({split["parts"]["test"]["hash"] for split in splits}) == 1
    assert len({split["hash"] for split in splits}) == len(SPLITS[made.name])
    for run in made.runs:
        assert set(run.predictions("train")["image_id"]).isdisjoint(run.predictions("test")["image_id"])


@pytest.mark.slow
def test_an_experiment_changes_what_it_asks_about(made: Made) -> None:
    parts = [run.environment["split"]["parts"] for run in made.runs]
    if made.name == "cross_dataset":
        assert all(len(part["train"]["datasets"]) == len(part["val"]["datasets"]) == 1 for part in parts)
        assert all(len(part["test"]["datasets"]) == 3 for part in parts)
    else:
        assert len({part["val"]["hash"] for part in parts}) == 1
    if made.name == "imbalance":
        assert len({part["train"]["labelled"] for part in parts}) == 1
        assert len({part["train"]["abnormal"] for part in parts}) == 4
    if made.name == "learning_curve":
        assert len({part["train"]["patients"] for part in parts}) == 4
    for run in made.runs:
        path = run.folder / "predictions" / "degraded_test.parquet"
        assert path.is_file() == (made.name in ("paper", "robustness"))
        if path.is_file():
            images = run.predictions("test")["image_id"]
            found = pd.read_parquet(path).groupby(["degradation", "level"])["image_id"].agg(["size", "nunique"])
            assert set(found.index) == set(degradations(run.config.degrade))
            assert (found == len(images)).all(axis=None)


@pytest.mark.slow
def test_an_experiment_ends_in_its_report(made: Made) -> None:
    assert (made.folder / "report" / "report.html").is_file(), made.said[-3000:]
