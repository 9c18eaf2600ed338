"""Degraded radiographs: as configured, the same whatever batch they come in, worse with each level."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from lungdet.data.serving.batches import Batches
from lungdet.data.serving.degrade import Degradation, degradations
from lungdet.data.serving.loading import InOrder, Radiographs
from lungdet.errors import InputError
from tests.calling import CHECKOUT

STANDARD = OmegaConf.to_container(OmegaConf.load(CHECKOUT / "conf/degrade/standard.yaml"))
NOTHING = {"noise": 0, "blur": 0, "exposure": 1}
IDS = [f"clinic/{i}" for i in range(6)]
MANIFEST = pd.DataFrame({"image_id": IDS, "patient_id": IDS, "visit": 0, "age": 50.0, "abnormal": 0.0})


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Smooth shades with edges, as of a chest, 224 x 224."""
    y, x = np.mgrid[:224, :224] / 224
    shades = [100 + 80 * np.sin(3 * x + i) * np.cos(2 * y) + 30 * ((x * 8 + i).astype(int) % 2) for i in range(6)]
    return np.clip(shades, 0, 255).astype(np.uint8)


def degraded(kind: str, level: float, images: np.ndarray, image_ids: list[str]) -> np.ndarray:
    return np.stack(list(map(Degradation(kind, level), images, image_ids)))


def change(images: np.ndarray, changed: np.ndarray) -> float:
    return float(np.abs(images.astype(int) - changed).mean())


@pytest.mark.parametrize(("kind", "level"), NOTHING.items())
def test_a_level_that_does_nothing_leaves_every_pixel(images: np.ndarray, kind: str, level: float) -> None:
    assert np.array_equal(degraded(kind, level, images, IDS), images)


def test_the_best_jpeg_is_nearly_the_image(images: np.ndarray) -> None:
    assert change(images, degraded("compression", 100, images, IDS)) < 1


@pytest.mark.parametrize(
    "levels",
    [
        ("noise", STANDARD["noise"]),
        ("blur", STANDARD["blur"]),
        ("compression", STANDARD["compression"]),
        ("exposure", [level for level in STANDARD["exposure"] if level > 1]),
        ("exposure", sorted((level for level in STANDARD["exposure"] if level < 1), reverse=True)),
    ],
)
def test_every_level_of_the_standard_is_worse_than_the_one_before(images: np.ndarray, levels: tuple) -> None:
    kind, values = levels
    changes = []
    for level in values:
        changed = degraded(kind, level, images, IDS)
        assert (changed.shape, changed.dtype) == (images.shape, np.uint8)
        changes.append(change(images, changed))
    assert len(values) >= 3
    assert 0 < changes[0] < 20
    assert changes == sorted(changes)
    assert changes[-1] > 2 * changes[0]


def test_an_images_noise_is_its_own_whatever_batch_it_is_in(images: np.ndarray) -> None:
    noise = Degradation("noise", 15)
    whole = degraded("noise", 15, images, IDS)
    assert np.array_equal(noise(images[4], IDS[4]), whole[4])
    assert np.array_equal(degraded("noise", 15, images[::-1], IDS[::-1])[::-1], whole)
    assert not np.array_equal(noise(images[4], "clinic/other"), whole[4])
    alike = degraded("noise", 15, np.full((2, 224, 224), 128, np.uint8), IDS[:2]).astype(int)
    assert np.std(alike - 128) == pytest.approx(15, rel=0.02)
    assert abs(np.corrcoef(alike[0].ravel(), alike[1].ravel())[0, 1]) < 0.02


def test_a_level_of_noise_is_the_same_noise_louder(images: np.ndarray) -> None:
    grey = np.full((224, 224), 128, np.uint8)
    quiet, loud = (Degradation("noise", level)(grey, IDS[0]).astype(int) - 128 for level in (10, 20))
    assert np.abs(loud - 2 * quiet).max() <= 2


def test_gamma_brightens_below_1_darkens_above_and_keeps_black_and_white() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None]
    bright, dark = (Degradation("exposure", gamma)(ramp, "a")[0] for gamma in (0.5, 2))
    assert (bright[1:255] >= ramp[0, 1:255]).all()
    assert (dark[1:255] <= ramp[0, 1:255]).all()
    assert bright[64] > 64 > dark[64]
    assert (bright[0], bright[255], dark[0], dark[255]) == (0, 255, 0, 255)


def test_blur_spreads_a_point_by_its_deviation_and_keeps_its_sum() -> None:
    point = np.zeros((65, 65), np.uint8)
    point[30:35, 30:35] = 255
    blurred = Degradation("blur", 3)(point, "a").astype(float)
    assert blurred.sum() == pytest.approx(point.sum(), rel=0.05)
    variance = (blurred.sum(0) * (np.arange(65) - 32) ** 2).sum() / blurred.sum()
    assert variance == pytest.approx(9 + 2, rel=0.15)  # the square's own variance is 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_serves_degraded_images_whatever_its_workers(images: np.ndarray, tmp_path: Path, workers: int) -> None:
    np.save(tmp_path / "images.npy", images)
    data = Radiographs(tmp_path / "images.npy", MANIFEST, ["abnormal"], degradation=Degradation("noise", 15))
    served = [batch["image"][:, 0].numpy() for batch in Batches(data, InOrder(np.arange(6), 4, shuffle=False), workers)]
    assert np.array_equal(np.rint(np.concatenate(served) * 255).astype(np.uint8), degraded("noise", 15, images, IDS))


def test_the_standard_is_every_kind_and_nothing_is_nothing() -> None:
    standard = degradations(STANDARD)
    assert {degradation.kind for degradation in standard} == {"noise", "blur", "exposure", "compression"}
    assert len(standard) == sum(len(levels) for levels in STANDARD.values())
    assert degradations({}) == degradations({"noise": []}) == []
    assert degradations({"noise": [5, 5.0]}) == degradations({"noise": 5}) == [("noise", 5.0)]


@pytest.mark.parametrize(
    "levels",
    [{"noise": [-1]}, {"noise": 300}, {"noise": ["loud"]}, {"blur": [None]}, {"exposure": [0]}, {"compression": [50.5]},
     {"compression": [0]}, {"noise": "5"}],
)  # fmt: skip
def test_a_level_that_cannot_be_is_refused(levels: dict) -> None:
    with pytest.raises(InputError, match=rf"degrade\.{next(iter(levels))}=.*levels are needed"):
        degradations(levels)


def test_a_kind_that_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match=r"degrade\.smudge: no such degradation; there are noise, blur"):
        degradations({"smudge": [1]})
