"""The study's augmentation by albumentations' own pipeline: what `lungdet.data.augment` is held against."""

import zlib

import albumentations
import cv2
import numpy as np

BORDER = {"reflect": cv2.BORDER_REFLECT_101, "replicate": cv2.BORDER_REPLICATE, "constant": cv2.BORDER_CONSTANT}


def pipeline(
    rotation: float = 0.0, flip: float = 0.0, zoom: float = 0.0, shift: float = 0.0, border: str = "reflect"
) -> albumentations.Compose:
    steps = []
    if rotation or zoom or shift:
        steps.append(
            albumentations.Affine(
                rotate=(-rotation, rotation),
                scale=(1 - zoom, 1 + zoom),
                translate_percent={"x": (-shift, shift), "y": (-shift, shift)},
                keep_ratio=True,
                border_mode=BORDER[border],
                p=1.0,
            )
        )
    if flip:
        steps.append(albumentations.HorizontalFlip(p=flip))
    return albumentations.Compose(steps)


def augmented(by: albumentations.Compose, image: np.ndarray, name: str) -> np.ndarray:
    """The image after the draw of this name; the flip starts apart from the rest."""
    by.set_random_seed(zlib.crc32(name.encode()))
    for step in by.transforms:
        if isinstance(step, albumentations.HorizontalFlip):
            step.set_random_seed(zlib.crc32(f"flip{name}".encode()))
    return by(image=image)["image"]
