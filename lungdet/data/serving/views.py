"""Test-time augmentation: the views of a radiograph that a finished network is shown beside the image as it is."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from lungdet.errors import InputError


class View(NamedTuple):
    """A radiograph moved to the right and down, by fractions of its side, then mirrored or not."""

    right: float = 0.0
    down: float = 0.0
    mirrored: bool = False

    def __call__(self, image: np.ndarray, _: str = "") -> np.ndarray:
        """The view (H, W) uint8 of an image (H, W) uint8; what comes in from beyond the edge is the image mirrored."""
        height, width = image.shape
        right, down = round(self.right * width), round(self.down * height)
        if right or down:
            across, along = abs(right), abs(down)
            wide = cv2.copyMakeBorder(image, along, along, across, across, cv2.BORDER_REFLECT_101)
            image = wide[along - down : along - down + height, across - right : across - right + width]
        return np.ascontiguousarray(image[:, ::-1] if self.mirrored else image)


ITSELF = View()
"""The image as it is."""


def views(flip: bool, shift: float) -> tuple[View, ...]:
    """The views that `views.*` asks for, the image as it is first.

    Args:
        flip: each view mirrored, too.
        shift: the image moved by this fraction of its side to the right, to the left, down and up, too.

    Raises:
        InputError: a value that makes no sense.
    """
    if not isinstance(flip, bool):
        raise InputError(f"views.flip={flip}: true or false is needed")
    if isinstance(shift, bool) or not isinstance(shift, int | float) or not 0 <= shift < 0.5:
        raise InputError(f"views.shift={shift}: a fraction of the side is needed, from 0 to below .5")
    places = [(0, 0), (shift, 0), (-shift, 0), (0, shift), (0, -shift)] if shift else [(0, 0)]
    return tuple(View(*place, mirrored) for mirrored in ([False, True] if flip else [False]) for place in places)


def name(views: Sequence[View]) -> str:
    """What files that are made of these views are called by, `flip-shift0.04`; nothing of the image as it is alone."""
    farthest = max(view.right for view in views)
    mirrored = any(view.mirrored for view in views)
    return "-".join([*(["flip"] if mirrored else []), *([f"shift{farthest}"] if farthest else [])])
