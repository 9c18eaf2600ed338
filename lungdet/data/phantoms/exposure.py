"""From attenuation to the pixels of one of three sources: exposure, noise, tone, borders and markers.

The sources differ as the real ones do: ChestX-ray14 8 bit and square, of every exposure, some with borders and
portable; Montgomery 12 bit in 16-bit files, landscape or portrait, dark, black at the sides; Shenzhen 8 bit, of varying
size, bright and flat. How an image is exposed never depends on what it shows.
"""

from typing import NamedTuple

import cv2
import numpy as np


class Source(NamedTuple):
    """A source's look.

    The tone is 1 - exp(-(steepness * attenuation) ** power); `floor` is how bright unexposed air is, `sharpening` the
    local contrast, `border` how many images have unexposed film beside the picture.
    """

    steepness: float
    power: float
    noise: float
    floor: float
    sharpening: float
    border: float
    bits: int


SOURCES: dict[str, Source] = {
    "chestxray14": Source(1.72, 1.6, 0.006, 0.0, 0.15, 0.25, 8),
    "montgomery": Source(1.55, 1.9, 0.009, 0.0, 0.0, 0.8, 12),
    "shenzhen": Source(2.15, 1.25, 0.004, 0.10, 0.5, 0.1, 8),
}
GAIN, OFFSET, POWER = 0.21, 0.09, 0.18
"""How much exposures differ from image to image (deviations), to hide what a finding does to the brightness."""


def shape(source: str, size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Height and width of a file; `size` is the short side, or about it."""
    if source == "montgomery":
        long = round(size * 4892 / 4020)
        return (size, long) if rng.random() < 0.5 else (long, size)
    if source == "shenzhen":
        return tuple(int(n) for n in rng.integers(round(0.94 * size), round(1.06 * size) + 1, 2))
    return size, size


def expose(
    attenuation: np.ndarray, source: str, rng: np.random.Generator, *, portable: bool, artefact: bool
) -> np.ndarray:
    """The radiograph as its file holds it: uint8, or 12 bit in uint16.

    Args:
        attenuation: (H, W) float32, see `lungdet.data.phantoms.anatomy.radiograph`.
        source: a key of SOURCES.
        rng: of this image.
        portable: marked as taken at the bedside.
        artefact: carries the lead bead and the black strip that may predict the label (the shortcut).
    """
    look, (height, width) = SOURCES[source], attenuation.shape
    tilt = 0.03 * rng.normal(size=2).astype(np.float32)
    heel = np.linspace(-tilt[0], tilt[0], height, dtype=np.float32)[:, None]
    heel = heel + np.linspace(-tilt[1], tilt[1], width, dtype=np.float32)
    # Fewer quanta arrive where more is absorbed.
    grain = rng.standard_normal(attenuation.shape, dtype=np.float32) * np.exp(0.8 * attenuation)
    value = attenuation + heel + look.noise * rng.uniform(0.7, 1.6) * grain
    gain, offset, power = np.clip(rng.normal(size=3), -1.9, 1.9).tolist()  # nobody keeps a black film
    value = value * float(np.exp(GAIN * gain)) + OFFSET * offset
    value = np.maximum(value, 0) * look.steepness
    value = 1 - np.exp(-(value ** float(look.power * np.exp(POWER * power))))
    if look.sharpening:
        value += look.sharpening * (value - cv2.GaussianBlur(value, (0, 0), 0.035 * min(height, width)))
    low, high = look.floor * rng.uniform(0.3, 1.6), rng.uniform(0.9, 1.0)
    value = low + (high - low) * np.clip(value, 0, 1)
    _mark(value, source, rng, portable, artefact)
    if rng.random() < look.border:
        _border(value, source, rng)
    if artefact:
        value[:, : max(2, width // 24)] = 0
    return np.rint(value * (2**look.bits - 1)).astype(np.uint8 if look.bits == 8 else np.uint16)


def _border(value: np.ndarray, source: str, rng: np.random.Generator) -> None:
    """Unexposed film: at the sides (Montgomery), at the bottom (Shenzhen), anywhere (ChestX-ray14)."""
    height, width = value.shape
    sides = {"montgomery": (0, 1), "shenzhen": (3,)}.get(source, tuple(rng.permutation(4)[: rng.integers(1, 3)]))
    for side in sides:
        depth = int(rng.uniform(0.01, 0.06) * (height if side > 1 else width))
        strip = (np.s_[:, :depth], np.s_[:, width - depth :], np.s_[:depth], np.s_[height - depth :])[side]
        value[strip] = 0


def _mark(value: np.ndarray, source: str, rng: np.random.Generator, portable: bool, artefact: bool) -> None:
    """The letter of a side, a word on portable films, and the lead bead of the shortcut."""
    height, width = value.shape
    size = min(height, width)
    at_heart = bool(source == "shenzhen" or rng.random() < 0.7)  # the patient's left, which is the image's right
    x = rng.uniform(0.86, 0.92) if at_heart else rng.uniform(0.06, 0.12)
    y = rng.uniform(0.07, 0.16)
    layer = np.zeros(value.shape, np.uint8)
    _write(layer, "L" if at_heart else "R", x * width, y * height, rng.uniform(0.035, 0.05) * size)
    if portable:
        _write(layer, "PORTABLE", rng.uniform(0.6, 0.68) * width, rng.uniform(0.04, 0.07) * height, 0.02 * size)
    if source == "shenzhen":
        _write(layer, "pa", x * width, (y + 0.045) * height, 0.022 * size)
    if artefact:
        bead = int((0.09 if at_heart else 0.95) * width), int(0.2 * height)
        cv2.circle(layer, bead, max(2, round(0.022 * size)), 255, -1, cv2.LINE_AA)
    bright = np.float32(rng.uniform(0.85, 1)) / 255
    np.maximum(value, layer * bright, out=value)


def _write(layer: np.ndarray, text: str, x: float, y: float, tall: float) -> None:
    thickness = max(1, round(tall / 7))
    cv2.putText(layer, text, (int(x), int(y)), cv2.FONT_HERSHEY_SIMPLEX, tall / 21, 255, thickness, cv2.LINE_AA)
