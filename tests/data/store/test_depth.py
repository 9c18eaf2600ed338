"""The depth of 16-bit files is a dataset's own, and an image that alone decides it is warned of."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lungdet.data.store import depth
from lungdet.data.store.images import Settings
from lungdet.data.store.store import prepare
from tests.data.store.toys import SMALL, table, write


def test_dark_and_bright_16_bit_images_are_scaled_alike(tmp_path):
    """Scaled by its own range, the dark image would look like the bright one."""
    deep = tmp_path / "deep"
    deep.mkdir()
    ramp = np.linspace(0, 1, 16 * 16).reshape(16, 16)
    for name, top in (("bright", 4000), ("dark", 400)):
        Image.fromarray((ramp * top).astype(np.uint16)).save(deep / f"{name}.png")
    Image.fromarray((ramp * 200).astype(np.uint8)).save(deep / "eight.png")
    store = prepare(table("bright.png", "dark.png", "eight.png"), {"toy": deep}, SMALL, tmp_path / "stores")
    assert store.bits == {"toy": 12}
    assert [image.max() for image in store.images] == [round(4000 * 255 / 4095), round(400 * 255 / 4095), 200]
    np.testing.assert_array_equal(store.images[0], np.rint((ramp * 4000).astype(np.uint16) * (255 / 4095)))


def test_depth_is_each_datasets_own_and_can_be_given(tmp_path):
    roots = {"ten": tmp_path / "ten", "sixteen": tmp_path / "sixteen", "eight": tmp_path / "eight"}
    for name, scale in (("ten", 4), ("sixteen", 200), ("eight", 1)):
        write(roots[name], 3, scale=scale)
    names = ("00.png", "01.png", "02.png")
    manifest = pd.concat([table(*names, dataset=dataset) for dataset in roots], ignore_index=True)
    store = prepare(manifest, roots, SMALL, tmp_path / "stores")
    assert store.bits == {"ten": 10, "sixteen": 16}
    assert store.folder.name.startswith("eight+sixteen+ten-16-squash-")
    assert json.loads((store.folder / "store.json").read_text())["bits"] == store.bits
    assert prepare(manifest, roots, SMALL, tmp_path / "stores").bits == store.bits

    store = prepare(manifest, roots, Settings(size=16, bits=12), tmp_path / "stores")
    assert store.bits == {"ten": 12}
    assert set(store.excluded["image_id"].str.split("/").str[0]) == {"sixteen"}
    assert store.excluded["reason"].str.contains("does not fit data.bits=12; set data.bits=").all()

    store = prepare(manifest, roots, Settings(size=16, bits={"ten": 12}), tmp_path / "stores")
    assert store.bits == {"ten": 12, "sixteen": 16}
    assert store.excluded.empty


def test_an_image_whose_range_no_other_explains_is_warned_of_each_time(tmp_path, caplog):
    """A single white pixel of 16 bits turns 24 images of 12 bits nearly black."""
    arrays = write(tmp_path / "toy", 24, scale=7)
    roots, stores_ = {"toy": tmp_path / "toy"}, tmp_path / "stores"
    arrays["05.png"][0, 0] = 65535
    Image.fromarray(arrays["05.png"]).save(tmp_path / "toy" / "05.png")
    for _ in range(2):  # made, and found again
        caplog.clear()
        store = prepare(table(*arrays), roots, SMALL, stores_)
        assert store.bits == {"toy": 16}
        assert store.outliers["toy"].images == {"toy/05": 65535}
        assert "1 of 24 16-bit images hold values that the range of no other (up to " in caplog.text
        assert "toy/05 (65535). All are read as 16 bit, so the others have 8 of 256 greys" in caplog.text
        assert "data.bits=12 leaves them out" in caplog.text
    caplog.clear()
    cured = prepare(table(*arrays), roots, Settings(size=16, bits=12), stores_)
    assert cured.excluded["image_id"].tolist() == ["toy/05"]
    assert cured.images.max() > 100
    assert not prepare(table(*arrays), roots, Settings(size=16, bits=16), stores_).outliers
    assert "explains" not in caplog.text


def test_a_dataset_of_two_depths_in_two_datasets_is_cured_by_name(tmp_path, caplog):
    roots = {"a": tmp_path / "a", "b": tmp_path / "b"}
    for name in roots:
        write(roots[name], 3, scale=200 if name == "b" else 4)
    Image.fromarray(np.eye(40, dtype=np.uint16) * 60000).save(roots["a"] / "02.png")
    manifest = pd.concat([table("00.png", "01.png", "02.png", dataset=name) for name in roots], ignore_index=True)
    prepare(manifest, roots, SMALL, tmp_path / "stores")
    assert "'data.bits={a: 10}' leaves them out" in caplog.text
    assert prepare(manifest, roots, Settings(size=16, bits={"a": 10}), tmp_path / "stores").bits == {"a": 10, "b": 16}


@pytest.mark.parametrize(
    ("largest", "far"),
    [
        ([4000, 3900, 4095, 65535], [3]),
        ([65535], []),
        ([4000, 3000, 2000, 4095], []),
        ([900] * 19 + [1100], []),  # not beyond twice the others: a tail, if of more depth
        ([300] * 19 + [1000], []),  # no more depth is needed for it
        ([4000] * 18 + [20000, 65535], [18, 19]),
        ([4000] * 12 + [65535] * 8, []),  # no outliers, a scanner of its own
    ],
)
def test_outliers_are_few_far_and_cost_the_others_depth(largest, far):
    assert np.flatnonzero(depth.outlying(np.array(largest))).tolist() == far
