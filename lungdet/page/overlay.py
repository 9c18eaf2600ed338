"""A radiograph under a heat map, and beside it what each step of a sequence weighs.

Colours that the colour-blind tell apart. Legend: H x W pixels of the image, h x w of the picture, T steps.
"""

import io
import math

import matplotlib
import numpy as np
from PIL import Image

SMALLEST = 320
"""Pixels of a picture's side at least: smaller images are drawn several times as large."""
OPAQUE = 0.6
"""How much the hottest place hides of the radiograph."""
COLOURS = "inferno"
FOR, AGAINST = (221, 122, 31), (42, 134, 209)
"""What speaks for the finding, and against it."""
BAR = 7
"""A strip of bars is so many times narrower than the image."""


def overlay(
    image: np.ndarray, heat: np.ndarray, weights: np.ndarray | None = None, sequence: str | None = None
) -> np.ndarray:
    """The picture (h, w, 3) uint8: grey where the heat is 0, the hotter the brighter and yellower.

    Each map's hottest place looks alike, however hot it is.

    Args:
        image: (H, W) uint8.
        heat: (H, W), at least 0.
        weights: (T,), what each step speaks for the finding, negative against it: bars beside rows, below columns and
            visits (the last is this image), cells of a second picture for patches. Orange for, blue against.
        sequence: what a step is, of `lungdet.models.sequence.SEQUENCES`.
    """
    factor = math.ceil(SMALLEST / max(image.shape))
    grey = np.repeat(np.repeat(image, factor, 0), factor, 1).astype(np.float32)[..., None] / 255
    share = _scaled(heat, grey.shape[:2])
    share = share[..., None] / max(float(share.max()), np.finfo(np.float32).tiny)
    colour = matplotlib.colormaps[COLOURS](0.35 + 0.6 * share[..., 0])[..., :3]
    picture = _bytes(grey + (colour - grey) * OPAQUE * share**0.75)
    if weights is None:
        return picture
    share = weights / max(float(np.abs(weights).max()), np.finfo(np.float32).tiny)
    if sequence == "patches":
        return np.concatenate([picture, _cells(grey, share)], axis=1)
    if sequence == "rows":
        return np.concatenate([picture, _bars(share, *grey.shape[:2])], axis=1)
    return np.concatenate([picture, _bars(share, *grey.shape[1::-1]).transpose(1, 0, 2)[::-1]], axis=0)  # for: up


def png(picture: np.ndarray) -> bytes:
    """The file of a picture (h, w, 3)."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG", optimize=True)
    return data.getvalue()


def _bars(share: np.ndarray, length: int, across: int) -> np.ndarray:
    """(length, across / BAR, 3): a bar a step, from a line in the middle to the right for, to the left against."""
    strip = np.full((length, across // BAR, 3), 24, np.uint8)
    middle, ends = strip.shape[1] // 2, np.linspace(0, length, len(share) + 1).round().astype(int)
    gap = int(length / len(share) > 4)
    for start, end, value in zip(ends[:-1], ends[1:], share.tolist(), strict=True):
        reach = round(value * (middle - 2))
        strip[start + gap : end - gap, min(middle, middle + reach) : max(middle, middle + reach)] = (
            FOR if value > 0 else AGAINST
        )
    strip[:, middle] = 128
    return strip


def _cells(grey: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The radiograph under a grid of steps, as many down as across."""
    side = math.isqrt(len(share))
    grid = np.asarray(Image.fromarray(share.reshape(side, side)).resize(grey.shape[1::-1], Image.Resampling.NEAREST))
    colour = np.where(grid[..., None] > 0, FOR, AGAINST) / 255
    return _bytes(grey + (colour - grey) * OPAQUE * np.abs(grid)[..., None])


def _scaled(heat: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(heat.astype(np.float32)).resize(shape[::-1], Image.Resampling.BILINEAR))


def _bytes(picture: np.ndarray) -> np.ndarray:
    return np.rint(255 * picture.clip(0, 1)).astype(np.uint8)
