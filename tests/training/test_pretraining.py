"""A backbone starts where another run's ended, frozen or not, and never on patients it is tested on."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from lungdet.data.store.images import Settings
from lungdet.data.store.store import Store, prepare
from lungdet.errors import InputError
from lungdet.models.backbone import ConvBackbone, untrained
from lungdet.models.cnn import CNN
from lungdet.models.origins import ORIGINS
from lungdet.runs.folder import Run, load_run
from lungdet.training import pretraining
from lungdet.training.fitting import build_model
from tests.calling import composed

PARTS = {"train": "ab", "val": "c", "test": "d"}


def run(folder: Path, parts: dict[str, str] = PARTS, start: str | None = None, store: Store | None = None) -> str:
    """A run folder with a CNN's random weights and these patients, a letter each."""
    (folder / "checkpoints").mkdir(parents=True)
    model = CNN(ConvBackbone([4, 8]), hidden=4, dropout=0.0, learning_rate=1e-3)
    torch.save({"state_dict": model.state_dict()}, folder / "checkpoints" / "best.ckpt")
    backbone = {"widths": [4, 8], "init_from": start}
    OmegaConf.save({"model": {"backbone": backbone}, "run_dir": str(folder)}, folder / "config.yaml")
    rows = [
        {"image_id": f"x/{patient}", "patient_id": patient, "dataset": "x", "split": part}
        for part, patients in parts.items()
        for patient in patients
    ]
    pd.DataFrame(rows).to_csv(folder / "split.csv", index=False)
    known = {"store": "gone", "fingerprint": ""} if store is None else {"store": str(store.folder)}
    known |= {} if store is None else {"fingerprint": store.fingerprint}
    known |= {"bits": {}, "patients_known": True, "sources": {}}
    (folder / "environment.json").write_text(json.dumps({"data": known}))
    if start is not None:
        Run(folder).keep_start(load_run(start))
    return str(folder)


def prepared(folder: Path, **films: int) -> Store:
    """A store of these images by name, each drawn from its number."""
    rows = []
    for name, number in films.items():
        image = np.random.default_rng(number).integers(0, 255, (40, 40)).astype(np.uint8)
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{name}.png"), image)
        rows.append({"image_id": f"x/{name}", "dataset": "x", "path": f"{name}.png", "patient_id": name})
    return prepare(pd.DataFrame(rows), {"x": folder}, Settings(size=32), folder / "store")


def data(store: Store | None = None, **parts: str) -> SimpleNamespace:
    """Data whose parts hold these patients, a letter each."""
    names = "".join(parts.values())
    rows = {part: np.array([names.index(name) for name in patients], dtype=int) for part, patients in parts.items()}
    manifest = pd.DataFrame({"patient_id": list(names), "image_id": [f"x/{name}" for name in names]})
    return SimpleNamespace(manifest=manifest, rows=rows.__getitem__, store=store)


def test_the_backbone_is_the_other_runs_batch_norm_included(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    kept = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    for frozen in (False, True):
        backbone = ConvBackbone([4, 8], frozen=frozen)
        pretraining.load(backbone, folder)
        assert all(torch.equal(value, kept[f"backbone.{name}"]) for name, value in backbone.state_dict().items())
        assert all(parameter.requires_grad is not frozen for parameter in backbone.parameters())


def test_another_backbone_a_missing_run_and_one_without_weights_are_refused(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    with pytest.raises(InputError, match=r"init_from=.*run: its backbone is another one, .*\[4, 8\].* do not fit"):
        pretraining.load(ConvBackbone([4, 16]), folder)
    with pytest.raises(InputError, match=r"model\.backbone\.init_from=nowhere: no such folder"):
        pretraining.load(ConvBackbone([4, 8]), "nowhere")
    (tmp_path / "run/checkpoints/best.ckpt").unlink()
    with pytest.raises(InputError, match=r"best\.ckpt: no such checkpoint"):
        pretraining.load(ConvBackbone([4, 8]), folder)


def test_weights_are_given_the_pixel_values_that_they_had_in_the_other_run(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    config = OmegaConf.load(tmp_path / "run/config.yaml")
    config.model.backbone.origin = "densenet121-res224-nih"
    OmegaConf.save(config, tmp_path / "run/config.yaml")
    backbone = ConvBackbone([4, 8])
    with pytest.raises(
        InputError, match=r"expects other pixel values; set model\.backbone\.origin=densenet121-res224-nih"
    ):
        pretraining.load(backbone, folder)
    backbone.range = ORIGINS["densenet121-res224-nih"].range
    pretraining.load(backbone, folder)


def test_a_model_is_built_with_them_and_a_backbone_alone_is_not_left_at_random(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    kept = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    backbone = ["model.backbone.widths=[4,8]", f"model.backbone.init_from={folder}"]
    config = composed("train", "model=cnn_lstm", "data.image_size=32", f"run_dir={tmp_path}/new", *backbone)
    model = build_model(Run(tmp_path / "new", config))
    assert all(torch.equal(value, kept[f"backbone.{name}"]) for name, value in model.backbone.state_dict().items())
    with pytest.raises(ValueError, match=f"init_from={folder}: its weights are loaded by"):
        ConvBackbone([4, 8], init_from=folder)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": "ab", "val": "c", "test": "dx"}, None),
        ({"train": "abx", "val": "y", "test": "d"}, None),
        ({"train": "bc", "val": "d", "test": "a"}, "1 patient.* of this run's test part: a"),
        ({"train": "ab", "val": "d", "test": "c"}, "of this run's test part: c"),
        ({"train": "c", "val": "ab", "test": "d"}, r"2 patient\(s\) of this run's val part: a, b\."),
    ],
)
def test_a_run_that_learnt_from_those_who_are_tested_is_refused(
    tmp_path: Path, parts: dict, message: str | None
) -> None:
    first = load_run(run(tmp_path / "run"))
    if message is None:
        pretraining.require_unseen(first, data(**parts))
        return
    with pytest.raises(InputError, match=message):
        pretraining.require_unseen(first, data(**parts))


def test_so_is_one_whose_own_start_learnt_from_them_wherever_that_has_gone(tmp_path: Path) -> None:
    first = run(tmp_path / "first", {"train": "x", "val": "y"})
    second = run(tmp_path / "second", {"train": "z"}, first)
    third = load_run(run(tmp_path / "third", start=second))
    shutil.rmtree(first)
    run(tmp_path / "first", {"train": "w"}, start=str(third.folder))  # another one in its place, and in a circle
    pretraining.require_unseen(third, data(train="ab", val="c", test="dw"))
    for patient in "xyz":
        with pytest.raises(InputError, match=f"third: that run, or one that it started from, .* part: {patient}"):
            pretraining.require_unseen(third, data(train="ab", val="c", test=patient))
    shutil.rmtree(third.folder / "start/start")
    with pytest.raises(InputError, match=r"start/start: no such folder.* It tells what .*first, .* had learnt from"):
        pretraining.require_unseen(third, data(train="ab", val="c", test="d"))


def test_so_is_one_that_learnt_from_their_images_under_other_names(tmp_path: Path) -> None:
    theirs = prepared(tmp_path / "theirs", a=0, b=1, c=2, d=3)
    ours = prepared(tmp_path / "ours", p=9, q=2, r=0, s=3)
    first = load_run(run(tmp_path / "first", store=theirs))
    assert pretraining.require_unseen(first, data(ours, train="pqr", val="", test="s")) == []  # tested there, too
    assert pretraining.require_unseen(first, data(ours, train="pr", val="q", test="s")) == []  # validated there, too
    with pytest.raises(InputError, match=r"1 image\(s\) of this run's val part under other names: x/r \(there x/a\)"):
        pretraining.require_unseen(first, data(ours, train="pq", val="r", test="s"))
    with pytest.raises(InputError, match=r"test part under other names: x/q \(there x/c\)"):
        pretraining.require_unseen(first, data(ours, train="p", val="s", test="q"))


def test_whether_they_stand_there_under_other_names_is_not_known_without_the_prepared_images(tmp_path: Path) -> None:
    first = load_run(run(tmp_path / "first"))
    [lost] = pretraining.require_unseen(first, data(train="a", val="c", test="d"))
    assert lost == {"run": str(first.folder), "store": "gone is no longer there"}


def test_an_untrained_configuration_fetches_no_weights_and_leaves_the_original_alone() -> None:
    config = OmegaConf.create({"backbone": {"pretrained": True, "weights": "file", "init_from": "run", "widths": [4]}})
    plain = untrained(config)
    assert plain.backbone == {"pretrained": False, "weights": None, "init_from": None, "widths": [4]}
    assert config.backbone.init_from == "run"
