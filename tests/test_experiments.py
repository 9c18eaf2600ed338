"""Every experiment says what it asks and costs, and runs through its own command at its smoke size."""

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

import evaluate
import train
from lungdet.data.serving.degrade import degradations
from lungdet.evaluation.sections.known import Known
from lungdet.evaluation.sections.runs import STUDY
from lungdet.runs import identity
from lungdet.runs.folder import Run, find_runs
from tests.calling import CHECKOUT, composed, output

FOLDER = CHECKOUT / "conf/experiment"
EXPERIMENTS = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))
KNOWN = [name for name in EXPERIMENTS if name.startswith("known/")]
ON_REAL_DATA = ("controls", "cross_dataset", "imbalance", "learning_curve", "paper", "recipe", "robustness", "transfer")
# By experiment: the key that it varies, its values, and the two of them that are tried here.
VARIED = {
    "cross_dataset": ("data.train_on", "chestxray14,montgomery,shenzhen", "chestxray14,shenzhen"),
    "imbalance": ("data.train_prevalence", "0.05,0.1,0.25,0.5", "0.05,0.5"),
    "learning_curve": ("data.train_fraction", "0.1,0.25,0.5,1.0", "0.1,1.0"),
}
SPLITS = {
    "controls": {"random"},
    "cross_dataset": {"random, trained on phantom-chestxray14", "random, trained on phantom-shenzhen"},
    "imbalance": {"random, 0.05 abnormal in train", "random, 0.5 abnormal in train"},
    "learning_curve": {"random, 0.1 of train", "random"},
    "paper": {"random"},
    "temporal": {"random"},
}
MODELS = {
    "controls": "cnn,cnn_lstm,cnn_lstm_shuffled,cnn_lstm_frozen,cnn_mlp,pool,length_only",
    "recipe": "cnn",  # its report compares recipes only where the model is one
    "temporal": "cnn,cnn_lstm,cnn_lstm_shuffled,cnn_mlp,pool,length_only",
}
SMALL = ("data.size=64", "data.image_size=32", "data.num_workers=0", "trainer.max_epochs=1")


@cache
def trained_by(*choices: str) -> DictConfig:
    return composed("train", *choices, hydra=True)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_opens_with_its_question_its_command_its_cost_and_what_is_expected(name: str) -> None:
    first, *lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    header = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    assert first == "# @package _global_"
    headings = [line[2:11].strip() for line in header]
    assert [heading for heading in headings if heading] == ["Question", "Command", "Cost", "Expected"]


@pytest.mark.parametrize("name", ON_REAL_DATA)
def test_an_experiment_is_on_real_data_and_small_on_phantoms_by_the_same_word(name: str) -> None:
    whole, small = trained_by(f"experiment={name}"), trained_by(f"experiment=[{name},smoke]")
    assert whole.data._target_.endswith("CombinedDataModule")
    assert small.data._target_.endswith("PhantomDataModule")
    assert (whole.trainer.max_epochs, small.trainer.max_epochs) == (30, 2)
    assert small.logger.project is None
    for config in (whole, small):
        assert config.hydra.mode is RunMode.MULTIRUN
        assert config.hydra.callbacks.report._target_ == "lungdet.sweeps.reporting.Report"
    params = whole.hydra.sweeper.params
    assert params.model == MODELS.get(name, "cnn,cnn_lstm")
    assert len(params.seed.split(",")) >= 3
    if name in VARIED:
        key, values, _ = VARIED[name]
        assert str(params[key]) == values
    assert dict(small.hydra.sweeper.params) == {**params, "seed": "0"}


@pytest.mark.parametrize("name", KNOWN)
def test_an_experiment_with_a_known_answer_is_on_its_images_and_small_on_phantoms(name: str) -> None:
    whole, small = trained_by(f"experiment={name}", "run_dir=x"), trained_by(f"experiment=[{name},smoke]", "run_dir=x")
    assert f".{whole.known.data}." in whole.data._target_
    assert whole.data.split == whole.known.protocol
    assert small.data._target_.endswith("PhantomDataModule")
    assert small.known == whole.known
    Known(**whole.known)
    plain = whole.copy()
    plain.known = None
    assert identity.fingerprint(plain) == identity.fingerprint(whole)
    assert whole.hydra.callbacks.report._target_ == "lungdet.sweeps.reporting.Report"


def test_robustness_made_small_is_the_studys_experiment_made_small() -> None:
    paper, robustness = (trained_by(f"experiment=[{name},smoke]", "run_dir=x") for name in ("paper", "robustness"))
    assert identity.fingerprint(robustness) == identity.fingerprint(paper)
    for of_hydra in ("sweeper", "callbacks"):
        assert robustness.hydra[of_hydra] == paper.hydra[of_hydra]


def test_the_studys_experiment_learns_as_the_study_did_whatever_the_defaults_become(tmp_path: Path) -> None:
    other = shutil.copytree(CHECKOUT / "conf", tmp_path / "conf")
    changes = {
        "train.yaml": {"optimizer: adam": "optimizer: sgd", "schedule: plateau": "schedule: cosine"},
        "every_model.yaml": {"warm_up: 0": "warm_up: 3", "label_smoothing: 0.0": "label_smoothing: 0.1"},
        "trainer/auto.yaml": {
            "averaging: 0.9": "averaging: 0.5",
            "accumulate_grad_batches: 1": "accumulate_grad_batches: 4",
        },
    }
    for file, words in changes.items():
        text = (other / file).read_text()
        for before, after in words.items():
            assert before in text
            text = text.replace(before, after)
        (other / file).write_text(text)
    with initialize_config_dir(str(other), version_base="1.3"):
        plain, paper = (compose("train", ["run_dir=x", *words]) for words in ([], ["experiment=paper"]))
    assert (plain.optimizer._target_, plain.trainer.averaging) == ("torch.optim.SGD", 0.5)
    assert paper.optimizer == {"_target_": "torch.optim.Adam", "_partial_": True}
    assert {key: OmegaConf.select(paper, key) for key in STUDY} == STUDY


def test_the_temporal_experiment_starts_from_a_run_of_its_own_size_which_is_trained_first() -> None:
    whole, small = trained_by("experiment=temporal"), trained_by("experiment=[temporal,smoke]")
    for config in (whole, small):
        assert config.hydra.callbacks.first.folder == config.model.backbone.init_from
        assert config.hydra.callbacks.first.overrides["trainer.max_epochs"] == config.trainer.max_epochs
    assert whole.model.backbone.init_from != small.model.backbone.init_from


@pytest.mark.parametrize("name", ["demo", "temporal"])
def test_an_experiments_schedule_makes_room_for_another(name: str) -> None:
    assert trained_by(f"experiment={name}").schedule.patience == 6
    assert trained_by(f"experiment={name}", "schedule=cosine").schedule == trained_by("schedule=cosine").schedule


def test_neither_smoke_nor_demo_evaluates_by_itself() -> None:
    assert "report" not in trained_by("experiment=smoke").hydra.callbacks
    assert "report" not in trained_by("experiment=demo").hydra.callbacks


@pytest.mark.slow
@pytest.mark.parametrize("name", ["controls", "cross_dataset", "imbalance", "learning_curve", "temporal"])
def test_an_experiment_changes_what_it_asks_about_and_its_runs_can_be_compared(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """At its smoke size, smaller, shorter and with two values; all but the last find their phantoms drawn already."""
    outputs = tmp_path_factory.getbasetemp() / "experiments"
    folder = outputs / name
    choices = [f"experiment=[{name},smoke]", f"outputs={outputs}", f"hydra.sweep.dir={folder}"]
    if name in VARIED:
        key, _, two = VARIED[name]
        choices.append(f"{key}={two}")
    output(train, *choices, *SMALL, "~hydra.callbacks.report")
    output(evaluate, f"runs={folder}", "efficiency=false", "draws=100")
    runs = find_runs(folder)
    assert_a_run_for_each(name, runs)
    parts = [run.environment["split"]["parts"] for run in runs]
    if name == "cross_dataset":
        assert all(len(part["train"]["datasets"]) == len(part["val"]["datasets"]) == 1 for part in parts)
        assert all(len(part["test"]["datasets"]) == 3 for part in parts)
    else:
        assert len({part["val"]["hash"] for part in parts}) == 1
    if name == "imbalance":
        assert len({part["train"]["labelled"] for part in parts}) == 1
        assert len({part["train"]["abnormal"] for part in parts}) == 2
    if name == "learning_curve":
        assert len({part["train"]["patients"] for part in parts}) == 2
    assert not [*folder.glob("*/predictions/degraded_test.parquet")]
    assert (folder / "report" / "report.html").is_file()


@pytest.mark.slow
def test_the_studys_experiment_ends_in_its_report_and_degrades_its_test_images(tmp_path: Path) -> None:
    """Its own command as it is documented, in a process of its own, smaller and shorter."""
    choices = ["experiment=[paper,smoke]", f"outputs={tmp_path}", f"hydra.sweep.dir={tmp_path}/paper"]
    done = subprocess.run([sys.executable, "train.py", *choices, *SMALL], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / "paper" / "report" / "report.html").is_file(), done.stdout[-3000:] + done.stderr[-3000:]
    runs = find_runs(tmp_path / "paper")
    assert_a_run_for_each("paper", runs)
    for run in runs:
        images = run.predictions("test")["image_id"]
        counts = pd.read_parquet(run.folder / "predictions" / "degraded_test.parquet")
        counts = counts.groupby(["degradation", "level"])["image_id"].agg(["size", "nunique"])
        assert set(counts.index) == set(degradations(run.config.degrade))
        assert (counts == len(images)).all(axis=None)


def assert_a_run_for_each(name: str, runs: list[Run]) -> None:
    """Of its models and splits, all finished and tested on the same images."""
    assert all(run.finished for run in runs)
    splits = [run.environment["split"] for run in runs]
    assert {split["name"] for split in splits} == SPLITS[name]
    models = MODELS.get(name, "cnn,cnn_lstm").split(",")
    assert len(runs) == len(models) * len(SPLITS[name])
    assert len({split["parts"]["test"]["hash"] for split in splits}) == 1
    assert len({split["hash"] for split in splits}) == len(SPLITS[name])
    for run in runs:
        assert set(run.predictions("train")["image_id"]).isdisjoint(run.predictions("test")["image_id"])
