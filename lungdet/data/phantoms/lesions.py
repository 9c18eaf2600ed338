"""Findings of a synthetic radiograph: where each occurs, what it does to the picture, and its mask."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from lungdet.data.phantoms.canvas import Canvas


class Lesion(NamedTuple):
    """One finding of one patient.

    Attributes:
        severity: 0..1, how far it has come; changes from visit to visit.
        side: -1 the image's left, 1 its right.
        x, y: the centre, x away from the midline, in the patient's coordinates (see `lungdet.data.phantoms.anatomy`).
        shape: what makes it this patient's own: numbers of a standard normal distribution.
        amplitude: how strongly it shows; 1 is glaring, 0 invisible.
    """

    severity: float
    side: int
    x: float
    y: float
    shape: np.ndarray
    amplitude: float


@dataclass
class Layers:
    """The chest that lesions are drawn into; they alter `air`, `vessels` and `added`. Lists hold the two sides."""

    canvas: Canvas
    scale: tuple[float, float]
    """Width and height of the body."""
    lungs: list[np.ndarray]
    """Outlines."""
    rim: list[np.ndarray]
    """1 inside a lung."""
    heart: np.ndarray
    air: list[np.ndarray]
    vessels: np.ndarray
    added: np.ndarray
    """Attenuation."""


def draw_lesion(finding: str, rng: np.random.Generator, severity: float, amplitude: float) -> Lesion:
    """Side, place and shape of a finding, drawn where it occurs."""
    side = -1 if rng.random() < _RIGHT.get(finding, 0.5) else 1
    x, y = {
        "nodule": (rng.uniform(0.13, 0.26), rng.uniform(-0.24, 0.12)),
        "mass": (rng.uniform(0.14, 0.23), rng.uniform(-0.2, 0.08)),
        "infiltration": (rng.uniform(0.13, 0.23), rng.uniform(-0.05, 0.14)),
        "tuberculosis": (rng.uniform(0.12, 0.19), rng.uniform(-0.28, -0.2)),
    }.get(finding, (0.2, 0.0))
    return Lesion(severity, side, x, y, rng.normal(size=64), amplitude)


def heart_growth(lesions: Mapping[str, Lesion]) -> float:
    """Width of the heart over its healthy width."""
    lesion = lesions.get("cardiomegaly")
    return 1.0 if lesion is None else 1 + lesion.amplitude * (0.32 + 0.32 * lesion.severity)


def apply(layers: Layers, lesions: Mapping[str, Lesion]) -> dict[str, np.ndarray]:
    """Draw the lesions into the layers; a bool mask (H, W) each."""
    return {finding: _DRAW[finding](layers, lesion) for finding, lesion in lesions.items()}


def _focus(layers: Layers, lesion: Lesion, radius: float, roughness: float) -> np.ndarray:
    """Distance from the lesion's centre over its radius in that direction: below 1 inside, lobulated."""
    dx = layers.canvas.x - lesion.side * lesion.x * layers.scale[0]
    dy = layers.canvas.y - lesion.y * layers.scale[1]
    angle = np.arctan2(dy, dx)
    s = lesion.shape.tolist()
    wobble = sum(s[k] / k * np.cos(k * angle + 3 * s[k + 10]) for k in (2, 3, 4, 5)) + 0.12 * np.cos(9 * angle + s[20])
    return np.hypot(dx, dy) / (radius * (1 + roughness * wobble))


def _cloud(layers: Layers, lesion: Lesion) -> np.ndarray:
    """Patchy noise in 0..1 that moves with the patient."""
    canvas, grid = layers.canvas, lesion.shape.reshape(8, 8).astype(np.float32)
    u = (np.mod((canvas.x - lesion.side * lesion.x) * 34 + 3.5, 7)).astype(np.float32)
    v = (np.mod((canvas.y - lesion.y) * 34 + 3.5, 7)).astype(np.float32)
    noise = cv2.remap(grid, u, v, cv2.INTER_LINEAR)
    noise += 0.6 * cv2.remap(grid, np.mod(v * 2.3, 7), np.mod(u * 2.3, 7), cv2.INTER_LINEAR)
    return np.clip(0.55 + 0.5 * noise, 0, 1.6)


def _nodule(layers: Layers, lesion: Lesion) -> np.ndarray:
    r = _focus(layers, lesion, 0.019 + 0.015 * lesion.severity, 0.10)
    sphere = np.sqrt(np.clip(1.08 - r**2, 0, 1))
    layers.added = layers.added + 0.36 * lesion.amplitude * sphere
    return r < 1


def _mass(layers: Layers, lesion: Lesion) -> np.ndarray:
    r = _focus(layers, lesion, 0.040 + 0.030 * lesion.severity, 0.16)
    body = np.sqrt(np.clip(1.05 - r**2, 0, 1)) + 0.2 * np.exp(-((r / 1.1) ** 4))
    layers.added = layers.added + 0.33 * lesion.amplitude * body * np.maximum(*layers.rim)
    return r < 1.02


def _infiltration(layers: Layers, lesion: Lesion) -> np.ndarray:
    return _patch(layers, lesion, 0.085 + 0.045 * lesion.severity, 0.32)


def _patch(layers: Layers, lesion: Lesion, radius: float, density: float) -> np.ndarray:
    r = _focus(layers, lesion, radius, 0.1)
    envelope = np.exp(-(r**4)) * layers.rim[lesion.side > 0]
    layers.added = layers.added + density * lesion.amplitude * envelope * _cloud(layers, lesion)
    return (r < 1.05) & (layers.rim[lesion.side > 0] > 0.2)


def _tuberculosis(layers: Layers, lesion: Lesion) -> np.ndarray:
    """An apical infiltrate, streaks towards the hilum and, once advanced, a thick-walled cavity."""
    mask = _patch(layers, lesion, 0.065 + 0.045 * lesion.severity, 0.26)
    if lesion.severity > 0.35:
        radius = 0.018 + 0.020 * lesion.severity
        r = _focus(layers, lesion, radius, 0.08)
        wall = np.exp(-(((r - 1) * radius / 0.008) ** 2))
        hollow = np.clip(1.1 - r, 0, 1)
        layers.added = layers.added + lesion.amplitude * (0.20 * wall - 0.17 * np.minimum(hollow * 3, 0.9))
        mask |= r < 1.3
    start = np.array([lesion.side * lesion.x, lesion.y])
    hilum = np.array([lesion.side * 0.085, -0.06])
    lines = []
    for k in range(5):
        ends = np.array([start + 0.03 * lesion.shape[k : k + 2], hilum + 0.02 * lesion.shape[k + 8 : k + 10]])
        lines.append((ends * layers.scale, 0.004, 0.9))
    streaks = layers.canvas.soft(layers.canvas.strokes(lines), 0.002)
    layers.added = layers.added + 0.15 * lesion.amplitude * lesion.severity * streaks
    return mask


def _effusion(layers: Layers, lesion: Lesion) -> np.ndarray:
    """Fluid at the base: a level that climbs along the chest wall (the meniscus)."""
    side, canvas = lesion.side, layers.canvas
    outline = layers.lungs[side > 0]
    corner = outline[np.argmax(outline[:, 1])].tolist()
    lateral = np.clip((side * canvas.x) / abs(corner[0]), 0, 1.05)
    level = corner[1] - (0.09 + 0.19 * lesion.severity) - 0.075 * (lateral**5) + 0.05 * (1 - lateral)
    fluid = 0.5 + 0.5 * np.tanh((canvas.y - level) * 75)
    inside = fluid * layers.rim[side > 0] * (side * canvas.x > 0.03)
    layers.air[side > 0] = layers.air[side > 0] * (1 - min(1, 1.3 * lesion.amplitude) * fluid)
    layers.added = layers.added + 0.05 * lesion.amplitude * inside
    layers.vessels = layers.vessels * (1 - inside)
    return inside > 0.4


def _pneumothorax(layers: Layers, lesion: Lesion) -> np.ndarray:
    """Air between chest wall and lung: no vessels, darker, bounded by the thin line of the pleura."""
    side, canvas = lesion.side, layers.canvas
    outline, rim = layers.lungs[side > 0], layers.rim[side > 0]
    hilum = np.array([side * 0.075, 0.06])
    retreat = 0.07 + 0.22 * lesion.severity
    # The apex and the side come off most; at the base the lung keeps its place.
    height = np.clip((0.24 - outline[:, 1]) / 0.5, 0, 1)[:, None]
    pleura = outline + (hilum - outline) * retreat * height * np.clip(np.abs(outline[:, :1]) / 0.12, 0.2, 1)
    lung = canvas.soft(canvas.fill(pleura), 0.0015)
    gap = np.clip(rim - lung, 0, 1)
    line = canvas.soft(canvas.strokes([(pleura, 0.005, 1.0)], closed=True), 0.0012) * (side * canvas.x > 0.08)
    fading = np.clip((0.16 - canvas.y) / 0.06, 0, 1)  # the line is lost over the diaphragm
    layers.vessels = layers.vessels * (1 - min(1, 1.3 * lesion.amplitude) * gap)
    layers.added = layers.added + lesion.amplitude * (0.14 * line * rim * fading - 0.11 * gap + 0.05 * lung)
    return gap > 0.5


def _cardiomegaly(layers: Layers, lesion: Lesion) -> np.ndarray:
    """The heart is drawn larger from the start (`heart_growth`); here only its mask."""
    return layers.heart > 127


# How often the patient's right side has it. Fluid prefers the right; a large heart already brightens the left, and one
# pixel there must not tell the label.
_RIGHT = {"effusion": 0.65, "infiltration": 0.6, "pneumothorax": 0.45}

_DRAW: dict[str, Callable[[Layers, Lesion], np.ndarray]] = {
    "nodule": _nodule,
    "mass": _mass,
    "infiltration": _infiltration,
    "tuberculosis": _tuberculosis,
    "effusion": _effusion,
    "pneumothorax": _pneumothorax,
    "cardiomegaly": _cardiomegaly,
}
FINDINGS: tuple[str, ...] = tuple(_DRAW)
"""What a phantom may show."""
