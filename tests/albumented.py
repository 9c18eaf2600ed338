"""The same augmentation by albumentations' own pipeline: what `lungdet.data.augment` is held against."""

import zlib

import albumentations
import cv2
import numpy as np

BORDER = {"reflect": cv2.BORDER_REFLECT_101, "replicate": cv2.BORDER_REPLICATE, "constant": cv2.BORDER_CONSTANT}
START = {
    "RandomResizedCrop": "crop",
    "HorizontalFlip": "flip",
    "RandomBrightnessContrast": "contrast",
    "RandomGamma": "gamma",
    "Erasing": "erasing",
}


def pipeline(
    rotation: float = 0.0,
    flip: float = 0.0,
    zoom: float = 0.0,
    shift: float = 0.0,
    border: str = "reflect",
    crop: float = 0.0,
    brightness: float = 0.0,
    contrast: float = 0.0,
    gamma: float = 0.0,
    erasing: float = 0.0,
    size: tuple[int, int] = (96, 112),
) -> albumentations.Compose:
    """`size` is what a crop is resized to."""
    steps = []
    if crop:
        steps.append(albumentations.RandomResizedCrop(size, scale=(1 - crop, 1)))
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
    if brightness or contrast:
        steps.append(albumentations.RandomBrightnessContrast(brightness, contrast, p=1.0))
    if gamma:
        steps.append(albumentations.RandomGamma((100 - 100 * gamma, 100 + 100 * gamma), p=1.0))
    if erasing:
        steps.append(albumentations.Erasing(fill="random_uniform", p=erasing))
    return albumentations.Compose(steps)


def augmented(by: albumentations.Compose, image: np.ndarray, name: str) -> np.ndarray:
    """The image after the draw of this name; each transform starts apart from the rest."""
    by.set_random_seed(0)
    for step in by.transforms:
        step.set_random_seed(zlib.crc32(f"{START.get(type(step).__name__, '')}{name}".encode()))
    return by(image=image)["image"]
