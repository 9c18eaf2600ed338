"""Augmentation does to every image what albumentations' pipeline does, to the last bit."""

import cv2
import numpy as np
import pytest

from lungdet.data.augment import Augmentation, draw
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
]
NAMES = [draw(seed, epoch, f"d/{i}", epoch) for seed in (0, 7) for epoch in (0, 1) for i in range(80)]


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
