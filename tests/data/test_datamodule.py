"""Keys of the data: one meaning, one check, the same default on the command line as in Python. One split a module."""

from dataclasses import MISSING, fields
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from lungdet.data.serving.serving import Serving
from lungdet.data.sources.table import TableDataModule
from lungdet.data.splitting.plan import Plan
from lungdet.data.splitting.splits import SplitError
from lungdet.data.store.images import Settings
from tests.calling import CHECKOUT

KEYS = OmegaConf.to_container(OmegaConf.load(CHECKOUT / "conf/every_data.yaml"))
OF_THE_RUN = {"task", "visits", "augmentation", "seed"}
"""What the model, the augmentation and the run decide."""


@pytest.mark.parametrize("kind", [Settings, Plan, Serving])
def test_a_keys_default_is_that_of_its_type(kind: type) -> None:
    names = {field.name: "image_size" if field.name == "size" else field.name for field in fields(kind)}
    for field in fields(kind):
        if field.name not in OF_THE_RUN:
            assert field.default is not MISSING
            default = [*field.default] if isinstance(field.default, tuple) else field.default
            assert KEYS[names[field.name]] == default, field.name


def test_every_key_is_one_that_a_type_holds() -> None:
    keys = {field.name for kind in (Settings, Plan, Serving) for field in fields(kind)}
    assert {*KEYS} - keys == {"store", "image_size"}


@pytest.fixture
def clinic(tmp_path: Path, request: pytest.FixtureRequest) -> TableDataModule:
    """40 patients with an image each; so many of the images differ."""
    images = np.random.default_rng(0).integers(0, 256, (request.param, 32, 32), np.uint8)
    rows = []
    for patient in range(40):
        cv2.imwrite(str(tmp_path / f"{patient}.png"), images[patient % len(images)])
        rows.append({"path": f"{patient}.png", "patient_id": patient, "abnormal": patient % 2})
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    return TableDataModule(table=tmp_path / "table.csv", store=tmp_path / "store", image_size=32)


@pytest.mark.parametrize("clinic", [40], indirect=True)
def test_patients_are_split_once_whatever_stages_follow(
    clinic: TableDataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    clinic.setup("fit")
    split = clinic.split
    monkeypatch.setattr(Plan, "draw", lambda *_: pytest.fail("split again"))
    clinic.setup("test")
    assert clinic.split is split


@pytest.mark.parametrize("clinic", [1], indirect=True)
def test_a_split_that_is_refused_is_refused_again(clinic: TableDataModule) -> None:
    for stage in ("fit", "test"):
        with pytest.raises(SplitError, match="identical"):
            clinic.setup(stage)
