"""A finished run scores other images: of patients it has not seen, prepared as its own were."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

import evaluate
from lungdet.errors import RunError
from lungdet.runs.folder import Run, load_run
from lungdet.runs.preparation import preparation
from lungdet.training.scoring import score
from tests.calling import call
from tests.fake_runs import write_run
from tests.small_runs import configured

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
    config = configured(tmp_path, table, "model=cnn", f"run_dir={folder}")
    OmegaConf.save(config, folder / "config.yaml", resolve=True)
    (folder / "checkpoints").mkdir()
    torch.save({"state_dict": instantiate(config.model).state_dict()}, folder / "checkpoints" / "best.ckpt")
    parts = ["train", "train", "val", "test", "test", "unused", "unused", "test"]
    split = pd.DataFrame({"patient_id": [f"table/{i}" for i in range(PATIENTS)], "dataset": "table", "split": parts})
    split.insert(0, "image_id", split["patient_id"] + "_0")
    split.to_csv(folder / "split.csv", index=False)
    return load_run(folder)


def test_images_of_a_dataset_that_published_weights_have_seen_are_not_scored(run: Run) -> None:
    run.record(origin={"weights": "file.pth", "seen": ["table"]})
    with pytest.raises(
        RunError, match=r"file\.pth: .* learnt from table, nobody knows from which .* 8 images of these"
    ):
        score(run, run.config.data)


def test_other_images_of_patients_trained_or_tuned_on_are_left_out(run: Run, caplog) -> None:
    scored = score(run, run.config.data)
    assert scored["patient_id"].tolist() == [f"table/{i}" for i in (3, 4, 5, 6, 7)]
    assert "3 images of 3 patients are left out" in caplog.text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_run_of_a_gpu_is_scored_as_this_machine_can_and_that_is_warned_of(run: Run, caplog) -> None:
    run.config.trainer.update({"accelerator": "cuda", "precision": "16-mixed"})
    for _ in range(2):
        assert score(run, run.config.data)["logit_abnormal"].notna().all()
    assert caplog.text.count("was trained in 16-mixed, which is for GPUs, and is scored in") == 1


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


@pytest.mark.parametrize(("key", "own", "other"), [("image_size", 32, 64), ("resize", "squash", "pad")])
def test_images_asked_to_be_prepared_otherwise_are_refused(run: Run, key: str, own: object, other: object) -> None:
    with pytest.raises(RunError, match=rf"trained with data\.{key}={own}, and data\.{key}={other} is asked for"):
        score(run, OmegaConf.merge(run.config.data, {key: other}))


def test_the_runs_own_images_under_other_names_are_left_out_with_their_patients(
    run: Run, table: Path, tmp_path: Path, caplog
) -> None:
    data = instantiate(run.config.data)
    data.prepare_data()
    store = {"store": str(data.store.folder), "fingerprint": data.store.fingerprint}
    run.record(data=run.environment["data"] | store)
    split = pd.read_csv(run.folder / "split.csv")
    split["image_id"] = [f"table/{i}_1" for i in range(PATIENTS)]
    split.to_csv(run.folder / "split.csv", index=False)

    rows = []
    for patient in range(PATIENTS):
        shutil.copy(table.parent / f"{patient}_1.png", tmp_path / f"z{patient}.png")
        rows.append({"path": f"z{patient}.png", "patient_id": f"z{patient}", "abnormal": patient % 2})
    cv2.imwrite(str(tmp_path / "again.png"), np.random.default_rng(9).integers(0, 255, (40, 48)).astype(np.uint8))
    rows.append({"path": "again.png", "patient_id": "z0", "abnormal": 0})  # of a patient who is known by another image
    pd.DataFrame(rows).assign(dataset="clinic").to_csv(tmp_path / "renamed.csv", index=False)
    scored = score(run, OmegaConf.merge(run.config.data, {"table": str(tmp_path / "renamed.csv"), "root": None}))
    assert scored["patient_id"].tolist() == [f"clinic/z{i}" for i in (3, 4, 5, 6, 7)]
    facts = scored.attrs["scored"]
    assert {**facts, "sources": [*facts["sources"]]} == {
        "excluded": 0, "copies": 3, "unsearched": [], "sources": ["clinic"], "store": facts["store"],
    }  # fmt: skip
    assert "3 images are copies of some that run learnt from: clinic/z0 is table/0_1" in caplog.text

    shutil.rmtree(data.store.folder)
    scored = score(run, OmegaConf.merge(run.config.data, {"table": str(tmp_path / "renamed.csv"), "root": None}))
    assert len(scored) == PATIENTS + 1
    lost = {"run": str(run.folder), "store": f"{data.store.folder} is no longer there"}
    assert scored.attrs["scored"]["unsearched"] == [lost]
    clause = f"of {run.folder} ({data.store.folder} is no longer there; prepare its data again)"
    assert f"under another name is not known {clause}" in caplog.text


def test_a_run_reads_16_bit_files_with_the_depth_that_it_was_trained_with(run: Run, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = []
    for patient in range(4):
        pixels = generator.integers(0, 4000, (40, 48)).astype(np.uint16)
        pixels[0, 0] = 65535 if patient == 3 else 4000
        cv2.imwrite(str(tmp_path / f"{patient}.png"), pixels)
        rows.append({"path": f"{patient}.png", "patient_id": f"deep{patient}", "abnormal": patient % 2})
    pd.DataFrame(rows).to_csv(tmp_path / "deep.csv", index=False)

    def scored(depths: dict, dataset: str = "table", **asked: object) -> pd.DataFrame:
        run.record(data=run.environment["data"] | {"bits": depths})
        pd.DataFrame(rows).assign(dataset=dataset).to_csv(tmp_path / "deep.csv", index=False)
        own = {"table": str(tmp_path / "deep.csv"), "root": None}
        return score(run, OmegaConf.merge(run.config.data, own, preparation(run), asked))

    for known in ({"table": 12}, {"table": 12, "elsewhere": 16}):
        table = scored(known)
        assert table["patient_id"].tolist() == [f"table/deep{i}" for i in range(3)]  # one does not fit
        assert table.attrs["scored"]["excluded"] == 1
    assert len(scored({"elsewhere": 12}, "clinic")) == 3
    assert len(scored({"elsewhere": 12}, "clinic", bits=16)) == 4  # another detector's depth may be told
    with pytest.raises(RunError, match=r"trained with data\.bits=12, and data\.bits=16 is asked for"):
        scored({"table": 12}, bits=16)
    with pytest.raises(RunError, match=r"trained with data\.bits=12, and data\.bits=16 is asked for"):
        scored({"table": 12}, bits=None)  # as it would be decided anew


def test_no_checkpoint_that_lies_in_the_working_directory_is_scored_with(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = score(run, run.config.data)
    other = instantiate(run.config.model).state_dict()
    (tmp_path / "here").mkdir()
    torch.save({"state_dict": other, "pytorch-lightning_version": "2.0.0"}, tmp_path / "here" / "hpc_ckpt_1.ckpt")
    monkeypatch.chdir(tmp_path / "here")
    for name, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    pd.testing.assert_frame_equal(score(run, run.config.data), expected)


def test_the_command_scores_a_small_run_and_refuses_another_size(run: Run, table: Path, tmp_path: Path) -> None:
    words = [f"runs={run.folder}", "data=table", f"data.table={table}", f"outputs={tmp_path}"]
    done = call(evaluate, *words, "data.num_workers=0", "efficiency=false")
    assert done.returncode == 0, done.stderr
    [kept] = (run.folder / "predictions").glob("table-later-*.parquet")
    assert len(run.predictions(kept.stem)) == 5
    assert (run.folder / f"report-{kept.stem}" / "report.html").exists()
    refused = call(evaluate, *words, "data.image_size=64")
    assert refused.returncode == 1
    assert "trained with data.image_size=32, and data.image_size=64 is asked for" in refused.stderr
