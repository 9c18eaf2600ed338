"""What published weights have seen is known of their origin or of who uses them, or recorded as unknown."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from lungdet.errors import InputError, RunError
from lungdet.training import published


def test_what_published_weights_have_seen_is_said_by_their_origin_and_by_who_uses_them(tmp_path: Path) -> None:
    (tmp_path / "file.pth").write_bytes(b"weights")
    file = {"pretrained": False, "weights": str(tmp_path / "file.pth"), "origin": None, "seen": None}

    def known(**values: object) -> dict | None:
        return published.origin(OmegaConf.create({"backbone": file | values}))

    assert known()["seen"] is None
    assert known()["weights"] == "file.pth"
    assert known()["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert known(seen=[])["seen"] == []
    nih = known(origin="densenet121-res224-nih")
    assert (nih["origin"], nih["seen"]) == ("densenet121-res224-nih", ["chestxray14"])
    assert known(origin="imagenet", seen=["montgomery"])["seen"] == ["montgomery"]
    assert known(weights=None) is None
    assert known(init_from="run", origin="imagenet") is None
    assert published.origin(OmegaConf.create({"backbone": None})) is None
    assert published.origin(OmegaConf.create({"backbone": {"widths": [4]}})) is None
    with pytest.raises(InputError, match=r"origin=imagenet, .*: of which weights\? set model\.backbone\.weights=FILE"):
        known(weights=None, origin="imagenet")
    with pytest.raises(InputError, match=r"seen=nih: a list of datasets is needed, 'model\.backbone\.seen=\[nih\]'"):
        known(seen="nih")


@pytest.mark.parametrize(("name", "origin"), [("resnet18", "imagenet"), ("vit_base_patch14_dinov2", None)])
def test_the_hubs_weights_are_imagenets_or_unknown(name: str, origin: str | None) -> None:
    facts = published.origin(OmegaConf.create({"backbone": {"name": name, "pretrained": True}}))
    assert facts["weights"].startswith(f"{name}.")
    assert (facts["origin"], facts["seen"]) == (origin, [] if origin else None)
    beyond = {"name": name, "pretrained": True, "seen": ["montgomery"]}
    assert published.origin(OmegaConf.create({"backbone": beyond}))["seen"] == ["montgomery"]


def test_a_dataset_that_published_weights_have_seen_is_not_tested_on() -> None:
    images = pd.DataFrame({"dataset": ["a", "b", "b"], "image_id": ["a/1", "b/1", "b/2"]})
    weights = {"weights": "file.pth"}
    published.require_outside([weights | {"seen": seen} for seen in (None, [], ["c"])], images, "the test part")
    with pytest.raises(
        RunError, match=r"file\.pth: .* learnt from b, .* 2 images of the test part are of it.*data=NAME"
    ):
        published.require_outside([weights | {"seen": ["b", "c"]}], images, "the test part")


def test_images_called_as_chestxray14s_are_are_warned_of_where_the_weights_have_seen_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = ["clinic/00000001_000", "clinic/00030805_012", "clinic/7", "other/00000001_000", "other/7", "sub/a/8"]
    images = pd.DataFrame({"image_id": names, "dataset": [name.partition("/")[0] for name in names]})
    published.require_outside(
        [{"weights": "a.pth", "seen": seen} for seen in (None, [], ["padchest"])], images, "these"
    )
    assert caplog.messages == []
    published.require_outside([{"weights": "b.pth", "seen": ["chestxray14", "padchest"]}], images, "these")
    [message] = caplog.messages
    assert message.startswith(
        "b.pth: these weights have learnt from chestxray14, and 2 of 3 images of these, dataset clinic"
    )
