"""What a poorer machine, exposure or archive would have made of prepared radiographs: pixels in, pixels out.

A level of 0 (exposure: 1, compression: 100) is the image as it is, or as nearly as JPEG leaves it. After Hendrycks and
Dietterich 2019, arXiv 1903.12261: each degradation alone, in a few steps, met at test time only.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from lungdet.errors import InputError


class Degradation(NamedTuple):
    """One kind of degradation at one level; a function of an image (H, W) uint8 and its id."""

    kind: str
    level: float

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """The degraded image (H, W) uint8."""
        return _KINDS[self.kind].apply(image, self.level, image_id)


def degradations(levels: Mapping[str, Sequence[float]]) -> list[Degradation]:
    """Every kind at every level of a configuration (conf/degrade/), in its order.

    Raises:
        InputError: a kind that is not known, or a level out of its range.
    """
    listed = []
    for kind, steps in levels.items():
        if kind not in _KINDS:
            raise InputError(f"degrade.{kind}: no such degradation; there are {', '.join(_KINDS)}")
        for level in steps if isinstance(steps, Sequence) else [steps]:
            if not isinstance(level, int | float) or not _KINDS[kind].accepts(level):
                raise InputError(f"degrade.{kind}={steps}: levels are needed, each {_KINDS[kind].range}")
            listed.append(Degradation(kind, float(level)))
    return list(dict.fromkeys(listed))


def noise(image: np.ndarray, sigma: float, image_id: str) -> np.ndarray:
    """Gaussian noise of deviation `sigma` grey levels; an image has one noise, louder at a higher level."""
    drawn = np.random.default_rng(zlib.crc32(image_id.encode())).standard_normal(image.shape, np.float32)
    return _grey(image + sigma * drawn)


def blur(image: np.ndarray, sigma: float, _: str = "") -> np.ndarray:
    """Gaussian blur of deviation `sigma` pixels."""
    return cv2.GaussianBlur(image, (0, 0), sigma) if sigma else image


def exposure(image: np.ndarray, gamma: float, _: str = "") -> np.ndarray:
    """Gamma: below 1 the whole image is brighter, above 1 darker; black and white stay."""
    return cv2.LUT(image, _grey(255 * (np.arange(256) / 255) ** gamma))


def compression(image: np.ndarray, quality: float, _: str = "") -> np.ndarray:
    """What is left after JPEG of this quality, 1 to 100."""
    _, written = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    return cv2.imdecode(written, cv2.IMREAD_GRAYSCALE)


class _Kind(NamedTuple):
    apply: Callable[[np.ndarray, float, str], np.ndarray]
    accepts: Callable[[float], bool]
    range: str


_KINDS: dict[str, _Kind] = {
    "noise": _Kind(noise, lambda level: 0 <= level <= 255, "a deviation from 0 to 255 grey levels"),
    "blur": _Kind(blur, lambda level: 0 <= level <= 100, "a deviation from 0 to 100 pixels"),
    "exposure": _Kind(exposure, lambda level: 0.1 <= level <= 10, "a gamma from 0.1 to 10"),
    "compression": _Kind(compression, lambda level: level in range(1, 101), "a whole JPEG quality from 1 to 100"),
}


def _grey(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)
