"""A backbone starts where another run's ended, frozen or not, and never on patients it is tested on."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from lungdet.errors import InputError
from lungdet.models import pretraining
from lungdet.models.backbone import ConvBackbone
from lungdet.models.cnn import CNN

PARTS = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}


def run(folder: Path, parts: dict[str, list[str]] = PARTS, init_from: str | None = None) -> str:
    """A run folder with a CNN's random weights and these patients."""
    (folder / "checkpoints").mkdir(parents=True)
    model = CNN(ConvBackbone([4, 8]), hidden=4, dropout=0.0, learning_rate=1e-3)
    torch.save({"state_dict": model.state_dict()}, folder / "checkpoints" / "best.ckpt")
    backbone = {"widths": [4, 8], "init_from": init_from}
    OmegaConf.save({"model": {"backbone": backbone}}, folder / "config.yaml")
    rows = [{"image_id": name, "patient_id": name, "split": part} for part, names in parts.items() for name in names]
    pd.DataFrame(rows).to_csv(folder / "split.csv", index=False)
    return str(folder)


def data(**parts: str) -> SimpleNamespace:
    """Data whose parts hold these patients, a letter each."""
    names = "".join(parts.values())
    rows = {part: np.array([names.index(name) for name in some], dtype=int) for part, some in parts.items()}
    return SimpleNamespace(manifest=pd.DataFrame({"patient_id": list(names)}), rows=rows.__getitem__)


def test_the_backbone_is_the_other_runs_batch_norm_included(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    kept = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    for frozen in (False, True):
        backbone = ConvBackbone([4, 8], init_from=folder, frozen=frozen)
        assert all(torch.equal(value, kept[f"backbone.{name}"]) for name, value in backbone.state_dict().items())
        assert all(parameter.requires_grad is not frozen for parameter in backbone.parameters())


def test_another_backbone_a_missing_run_and_one_without_weights_are_refused(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    with pytest.raises(InputError, match=r"init_from=.*run: its backbone is another one, .*\[4, 8\].* do not fit"):
        ConvBackbone([4, 16], init_from=folder)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        ConvBackbone([4, 8], init_from="nowhere")
    (tmp_path / "run/checkpoints/best.ckpt").unlink()
    with pytest.raises(InputError, match=r"best\.ckpt: no such checkpoint"):
        ConvBackbone([4, 8], init_from=folder)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"train": "ab", "val": "c", "test": "dx"}, None),
        ({"train": "abx", "val": "y", "test": "d"}, None),
        ({"train": "bc", "val": "d", "test": "a"}, "1 patient.* of this run's test part: a"),
        ({"train": "ab", "val": "d", "test": "c"}, "of this run's test part: c"),
        ({"train": "c", "val": "ab", "test": "d"}, r"2 patient\(s\) of this run's val part: a, b\."),
    ],
)
def test_a_run_that_learnt_from_those_who_are_tested_is_refused(tmp_path: Path, parts: dict, told: str | None) -> None:
    folder = run(tmp_path / "run")
    if told is None:
        pretraining.require_unseen(folder, data(**parts))
        return
    with pytest.raises(InputError, match=told):
        pretraining.require_unseen(folder, data(**parts))


def test_so_is_one_whose_own_start_learnt_from_them(tmp_path: Path) -> None:
    first = run(tmp_path / "first", {"train": ["x"], "val": ["y"]})
    second = run(tmp_path / "second", init_from=first)
    pretraining.require_unseen(second, data(train="ab", val="c", test="d"))
    with pytest.raises(InputError, match="first: that run learnt from 1"):
        pretraining.require_unseen(second, data(train="ab", val="c", test="x"))


def test_an_untrained_configuration_fetches_no_weights_and_leaves_the_original_alone() -> None:
    config = OmegaConf.create({"backbone": {"pretrained": True, "weights": "file", "init_from": "run", "widths": [4]}})
    plain = pretraining.untrained(config)
    assert plain.backbone == {"pretrained": False, "weights": None, "init_from": None, "widths": [4]}
    assert config.backbone.init_from == "run"
