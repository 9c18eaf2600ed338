"""Keys of the data: one meaning, one check, and the same default on the command line as in Python."""

from dataclasses import MISSING, fields

import pytest
from omegaconf import OmegaConf

from lungdet.data.serving.serving import Serving
from lungdet.data.splitting.plan import Plan
from lungdet.data.store.images import Settings
from tests.calling import CHECKOUT

KEYS = OmegaConf.to_container(OmegaConf.load(CHECKOUT / "conf/data/_base.yaml"))
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
    held = {field.name for kind in (Settings, Plan, Serving) for field in fields(kind)}
    assert {*KEYS} - held == {"store", "image_size"}
