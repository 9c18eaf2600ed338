"""Rotation, flip, zoom and shift: the only randomness that touches an image.

What is done to an image depends on (seed, epoch, image id, occurrence) and nothing else, so it is the same for any
number of workers, ranks and any order, and a run that is cut and resumed sees the images it would have seen.
"""

import os
import zlib
from collections.abc import Sequence

import numpy as np

from lungdet.errors import InputError

# albumentations asks the package index for a newer version when imported; the successor of this one is not free.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


class Augmentation:
    """The study's augmentation, each kind a number; a number of 0 switches its kind off.

    Args:
        rotation: largest angle, degrees, to either side.
        flip: probability of a left-right flip. It puts the heart on the other side: 0 switches it off.
        zoom: largest relative change of size, either way: 0.1 draws from 0.9 .. 1.1.
        shift: largest shift, as a fraction of the image's side, in each direction.
    """

    def __init__(self, rotation: float = 0.0, flip: float = 0.0, zoom: float = 0.0, shift: float = 0.0) -> None:
        if not 0 <= rotation <= 180:
            raise InputError(f"augment.rotation={rotation}: degrees between 0 and 180 are needed")
        for name, value in (("flip", flip), ("zoom", zoom), ("shift", shift)):
            if not 0 <= value <= 1 or (name == "zoom" and value == 1):
                raise InputError(f"augment.{name}={value}: a number from 0 to 1 is needed")
        self._pipeline = None
        if not (rotation or flip or zoom or shift):
            return
        import albumentations  # two seconds: only when augmentation is asked for
        import cv2

        steps = []
        if rotation or zoom or shift:
            steps.append(
                albumentations.Affine(
                    rotate=(-rotation, rotation),
                    scale=(1 - zoom, 1 + zoom),
                    translate_percent={"x": (-shift, shift), "y": (-shift, shift)},
                    keep_ratio=True,
                    border_mode=cv2.BORDER_CONSTANT,  # black, as beyond the collimator
                    p=1.0,
                )
            )
        if flip:
            steps.append(albumentations.HorizontalFlip(p=flip))
        self._pipeline = albumentations.Compose(steps)

    def __call__(self, images: np.ndarray, draws: Sequence[str]) -> np.ndarray:
        """Augment `images` (N, H, W) uint8, each by the draw that its string names (see `draw`)."""
        if self._pipeline is None:
            return images
        changed = np.empty_like(images)
        for i, name in enumerate(draws):
            self._pipeline.set_random_seed(zlib.crc32(name.encode()))
            changed[i] = self._pipeline(image=images[i])["image"]
        return changed


def draw(seed: int, epoch: int, image_id: str, occurrence: int = 0) -> str:
    """The name of the draw for an image's `occurrence`-th appearance in an epoch."""
    return f"{seed}/{epoch}/{image_id}/{occurrence}"
