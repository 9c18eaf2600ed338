"""A finished run scores other images: of patients it has not seen, prepared as its own were."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from calling import call
from conftest import CHECKOUT
from fake_runs import write_run
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

import evaluate
from lungdet.models.scoring import score
from lungdet.runs import Run, RunError, load_run

PATIENTS = 8


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second visit of 8 patients, every other one abnormal."""
    folder = tmp_path_factory.mktemp("clinic")
    generator = np.random.default_rng(0)
    rows = []
    for patient in range(PATIENTS):
        cv2.imwrite(str(folder / f"{patient}_1.png"), generator.integers(0, 255, (40, 48)).astype(np.uint8))
        rows.append({"path": f"{patient}_1.png", "patient_id": patient, "abnormal": patient % 2})
    pd.DataFrame(rows).to_csv(folder / "later.csv", index=False)
    return folder / "later.csv"


@pytest.fixture
def run(table: Path, tmp_path: Path) -> Run:
    """A run with random weights, of 32 px; it had the first visits, patients 0 and 1 for training, 2 for validation."""
    folder = write_run(tmp_path / "run")
    choices = ["model=cnn", "data=table", f"data.table={table}", "data.image_size=32", "data.num_workers=0"]
    paths = [f"outputs={tmp_path}", f"run_dir={folder}", "logger=csv", "trainer.precision=32-true"]
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        config = compose("train", choices + paths)
    OmegaConf.save(config, folder / "config.yaml", resolve=True)
    (folder / "checkpoints").mkdir()
    torch.save({"state_dict": instantiate(config.model).state_dict()}, folder / "checkpoints" / "best.ckpt")
    parts = ["train", "train", "val", "test", "test", "unused", "unused", "test"]
    split = pd.DataFrame({"patient_id": [f"table/{i}" for i in range(PATIENTS)], "split": parts})
    split.insert(0, "image_id", split["patient_id"] + "_0")
    split.to_csv(folder / "split.csv", index=False)
    return load_run(folder)


def test_other_images_of_patients_trained_or_tuned_on_are_left_out(run: Run, caplog) -> None:
    scored = score(run, run.config.data)
    assert scored["patient_id"].tolist() == [f"table/{i}" for i in (3, 4, 5, 6, 7)]
    assert "3 images of 3 patients are left out" in caplog.text


def test_images_of_known_patients_alone_are_refused(run: Run) -> None:
    split = pd.read_csv(run.folder / "split.csv")
    split.assign(split="train").to_csv(run.folder / "split.csv", index=False)
    with pytest.raises(RunError, match=r"every one of these 8 images .* the first to table/0"):
        score(run, run.config.data)


def test_a_split_file_that_names_no_patients_is_refused(run: Run) -> None:
    split = pd.read_csv(run.folder / "split.csv")
    split.drop(columns="patient_id").to_csv(run.folder / "split.csv", index=False)
    with pytest.raises(RunError, match=r"split\.csv: no column patient_id"):
        score(run, run.config.data)


@pytest.mark.parametrize(
    ("key", "own", "other"), [("image_size", 32, 64), ("resize", "squash", "pad"), ("bits", None, 12)]
)
def test_images_asked_to_be_prepared_otherwise_are_refused(run: Run, key: str, own: object, other: object) -> None:
    with pytest.raises(RunError, match=rf"trained with data\.{key}={own}, and data\.{key}={other} is asked for"):
        score(run, OmegaConf.merge(run.config.data, {key: other}))


def test_the_command_scores_a_small_run_and_refuses_another_size(run: Run, table: Path, tmp_path: Path) -> None:
    words = [f"runs={run.folder}", "data=table", f"data.table={table}", f"outputs={tmp_path}"]
    done = call(evaluate, *words, "data.num_workers=0", "efficiency=false")
    assert done.returncode == 0, done.stderr
    assert len(run.predictions("table-later")) == 5
    assert (run.folder / "report-table-later" / "report.html").exists()
    refused = call(evaluate, *words, "data.image_size=64")
    assert refused.returncode == 1
    assert "trained with data.image_size=32, and data.image_size=64 is asked for" in refused.stderr
