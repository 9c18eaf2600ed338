"""Augmentation does to an image what albumentations' pipeline does, to the last bit, within its numbers."""

from inspect import signature
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf

from lungdet.data.augment import Augmentation, draw
from lungdet.errors import InputError
from tests.albumented import augmented, pipeline

PAPER = {"rotation": 10, "flip": 0.5, "zoom": 0.1, "shift": 0.05}
FAR = {"rotation": 180, "flip": 0.5, "zoom": 0.9, "shift": 1.0}  # several images beyond the edge
KINDS = [
    *({**PAPER, "border": border} for border in ("reflect", "replicate", "constant")),
    *({**FAR, "border": border} for border in ("reflect", "replicate", "constant")),
    {"flip": 0.5},
    {"rotation": 30},
    {"zoom": 0.3},
    {"shift": 0.2},
    {"flip": 1.0, "shift": 0.1},
    {"shift": 0.01},  # of small images: many stay where they are
    {"rotation": 1e-7, "flip": 0.5},  # albumentations takes that for none
    {"brightness": 0.4},
    {"contrast": 0.6},
    {"gamma": 0.8},
    {"erasing": 0.5},
    {**PAPER, "brightness": 0.2, "contrast": 0.2, "gamma": 0.2, "erasing": 1.0},
]
ALL = {**PAPER, "crop": 0.3, "brightness": 0.2, "contrast": 0.2, "gamma": 0.2, "erasing": 0.5}
NAMES = [draw(seed, epoch, f"d/{i}", epoch) for seed in (0, 7) for epoch in (0, 1) for i in range(25)]


@pytest.mark.parametrize("kinds", KINDS, ids=str)
@pytest.mark.parametrize("shape", [(224, 224), (48, 57)])
def test_images_are_albumentations_to_the_last_bit(kinds: dict[str, float], shape: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (len(NAMES), *shape), np.uint8)
    by, before = pipeline(**kinds), images.copy()
    expected = np.stack([augmented(by, image, name) for image, name in zip(images, NAMES, strict=True)])
    assert np.array_equal(list(Augmentation(**kinds)(images, NAMES, *shape)), expected)
    assert np.array_equal(images, before)
    assert kinds == {"rotation": 30} or len({image.tobytes() for image in expected}) > 2


@pytest.mark.parametrize("threads", [1, 2])
def test_opencvs_threads_change_nothing(threads: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 224, 224), np.uint8)
    expected = list(Augmentation(**PAPER)(images, NAMES[:8], 224, 224))
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        assert np.array_equal(list(Augmentation(**PAPER)(images, NAMES[:8], 224, 224)), expected)
    finally:
        cv2.setNumThreads(before)


def test_a_crop_is_the_one_that_albumentations_draws_and_resizes() -> None:
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (96, 112), np.uint8), (0, 0), 2) * 3
    by, names = pipeline(crop=0.6), NAMES[:40]
    expected = np.stack([augmented(by, image, name) for name in names])
    cropped = np.stack(list(Augmentation(crop=0.6)([image] * 40, names, 96, 112)))
    difference = np.abs(cropped[:, 2:-2, 2:-2].astype(int) - expected[:, 2:-2, 2:-2])  # the edges know what was cut off
    assert difference.max() <= 2
    assert difference.mean() < 0.3
    assert len({picture.tobytes() for picture in cropped}) == 40


def test_switching_a_kind_on_changes_no_draw_of_the_others() -> None:
    names, every = NAMES[:40], Augmentation(**ALL)

    def matrices(**kinds: float) -> np.ndarray:
        rows = Augmentation(**kinds).matrices(names, 96, 112)
        return np.concatenate([rows, np.broadcast_to(np.float32([[[0, 0, 1]]]), (40, 1, 3))], 1)

    cropped, moved, flipped = matrices(crop=0.3), matrices(**PAPER | {"flip": 0}), matrices(flip=0.5)
    np.testing.assert_allclose(matrices(**ALL), cropped @ moved @ flipped, rtol=0, atol=1e-4)
    turned, shifted = matrices(rotation=10), matrices(shift=0.05)
    centre = np.float32([55.5, 47.5, 1])
    back = np.linalg.inv(moved)
    np.testing.assert_allclose((back @ centre)[:, :2], (np.linalg.inv(shifted) @ centre)[:, :2], rtol=0, atol=1e-3)
    angle = [np.arctan2(each[:, 0, 1], each[:, 0, 0]) for each in (moved, turned)]
    np.testing.assert_allclose(*angle, rtol=0, atol=1e-6)
    toned, bent = (
        Augmentation(**kinds).tables(names) for kinds in ({"brightness": 0.2, "contrast": 0.2}, {"gamma": 0.2})
    )
    assert np.array_equal(every.tables(names), np.take_along_axis(bent, toned, 1))
    assert np.array_equal(toned[:, 0], Augmentation(brightness=0.2).tables(names)[:, 0])
    assert np.array_equal(every.rectangles(names, 96, 112), Augmentation(erasing=0.5).rectangles(names, 96, 112))


def test_each_kind_of_augmentation_stays_within_its_number() -> None:
    picture = np.zeros((1, 101, 101), np.uint8)
    picture[0, 40:61, 30:41] = 255  # off centre, taller than wide
    names = [str(i) for i in range(200)]
    many = np.repeat(picture, 200, 0)

    def augmented(**kinds: float) -> np.ndarray:
        return np.stack(list(Augmentation(**kinds)(many, names, 101, 101)))

    def centres(changed: np.ndarray) -> np.ndarray:
        ys, xs = np.mgrid[:101, :101]
        weight = changed.reshape(200, -1).astype(float)
        total = weight.sum(1)
        return np.stack([(weight @ ys.ravel()) / total, (weight @ xs.ravel()) / total], 1) - 50

    before = centres(many)[0]
    shifted = centres(augmented(shift=0.1)) - before
    assert np.abs(shifted).max() < 10.2
    assert np.abs(shifted).max() > 8
    angle = np.degrees(np.arctan2(*centres(augmented(rotation=20)).T)) - np.degrees(np.arctan2(*before))
    angle = (angle + 180) % 360 - 180
    assert np.abs(angle).max() < 20.5
    assert np.abs(angle).max() > 18
    area = (augmented(zoom=0.2) > 127).sum((1, 2)) / (picture > 127).sum()
    assert 0.8**2 * 0.9 < area.min() < 0.75
    assert 1.3 < area.max() < 1.2**2 * 1.1
    flipped = centres(augmented(flip=0.5))[:, 1] * np.sign(before[1])
    assert 60 < (flipped < 0).sum() < 140
    assert (centres(augmented(flip=0.0, shift=0.01))[:, 1] * np.sign(before[1]) > 0).all()


def test_the_flip_is_drawn_apart_from_the_shift() -> None:
    half = np.zeros((1, 101, 101), np.uint8)
    half[0, 40:61, 30:41] = 255
    names = [str(i) for i in range(300)]
    augmented = Augmentation(flip=0.5, shift=0.1)(np.repeat(half, 300, 0), names, 101, 101)
    changed = np.stack(list(augmented)).astype(float)
    centre = (changed * np.arange(101)).sum((1, 2)) / changed.sum((1, 2)) - 50
    flipped = centre > 0
    shift = np.where(flipped, 15 - centre, centre + 15)  # to the right, before the flip
    assert 0.4 < flipped.mean() < 0.6
    assert abs(shift[flipped].mean() - shift[~flipped].mean()) < 2


@pytest.mark.parametrize("wrong", [
    {"rotation": -1}, {"rotation": None}, {"flip": 1.5}, {"zoom": 1.0}, {"shift": -0.1}, {"crop": 1.0},
    {"brightness": float("nan")}, {"contrast": 1.1}, {"gamma": 1.0}, {"erasing": "often"},
])  # fmt: skip
def test_a_number_out_of_range_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=rf"augment\.{next(iter(wrong))}=.*: a number from 0 to "):
        Augmentation(**wrong)


def test_another_border_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"augment\.border=wrap: one of reflect, replicate, constant"):
        Augmentation(**PAPER, border="wrap")


def test_an_image_that_is_only_erased_is_not_the_stores() -> None:
    image = np.zeros((48, 57), np.uint8)
    image.setflags(write=False)
    (erased,) = Augmentation(erasing=1.0)([image], NAMES[:1], 48, 57)
    assert erased.any()


def test_every_kind_is_a_key_of_the_configuration_and_off() -> None:
    base = OmegaConf.load(Path(__file__).parents[2] / "conf/every_augment.yaml")
    off = {name: parameter.default for name, parameter in signature(Augmentation).parameters.items()}
    assert {**base} == {"_target_": "lungdet.data.augment.Augmentation", **off}
