"""Draws a frontal chest radiograph of a synthetic patient, as attenuation: what the rays met on their way.

Coordinates are the patient's (`lungdet.data.phantoms.canvas`). What a patient looks like (`Body`) stays over the
visits; how the patient stood and breathed (`Canvas`, `breath`) does not. Numbers are read off real radiographs by eye.
"""

from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np

from lungdet.data.phantoms.canvas import SIDES, Canvas, smooth, step
from lungdet.data.phantoms.lesions import Layers, Lesion, apply, heart_growth
from lungdet.data.phantoms.skeleton import LUNG, ribs, shoulders, spine

# Outlines; what is given as a half is mirrored.
_HEART = np.array(
    [
        *[(-0.078, 0.02), (-0.096, 0.1), (-0.085, 0.19), (-0.01, 0.235), (0.1, 0.238), (0.17, 0.215), (0.187, 0.165)],
        *[(0.175, 0.095), (0.135, 0.03), (0.098, -0.02), (0.083, -0.075), (0.03, -0.12), (-0.045, -0.07)],
    ]
)
_TRUNK = np.array(
    [(0.0, -0.62), (0.09, -0.62), (0.1, -0.47), (0.17, -0.435), (0.3, -0.415), (0.42, -0.395), (0.5, -0.3)]
)
_FLANK = np.array([(0.47, -0.12), (0.405, 0.02), (0.39, 0.12), (0.392, 0.3), (0.40, 0.65), (0.0, 0.65)])
_ARM = np.array([(0.3, -0.40), (0.42, -0.395), (0.52, -0.35), (0.60, -0.15), (0.68, 0.3), (0.53, 0.3), (0.44, -0.02)])


class Body(NamedTuple):
    """What stays the same from one visit to the next."""

    width: float
    height: float
    heart: float
    domes: tuple[float, float]
    flesh: float
    breast: float
    sway: tuple[float, float]
    ribs: tuple[float, float, float]
    bone: float
    knob: float
    gas: np.ndarray
    vessels: list[np.ndarray]
    texture: np.ndarray

    @classmethod
    def born(cls, rng: np.random.Generator, *, female: bool, age: float) -> "Body":
        """A patient."""
        n = rng.normal
        return cls(
            width=0.98 + 0.055 * n() - 0.03 * female,
            height=1.0 + 0.065 * n() - 0.02 * female,
            heart=float(np.clip(1.02 + 0.055 * n() + 0.001 * (age - 50), 0.86, 1.16)),
            domes=(-0.012 + 0.015 * n(), 0.012 + 0.015 * n()),
            flesh=float(np.clip(1.0 + 0.2 * n(), 0.65, 1.5)),
            breast=float(female) * rng.uniform(0.4, 1.2),
            sway=(0.012 * n(), rng.uniform(0, 6)),
            ribs=(0.058 + 0.003 * n(), 0.085 + 0.02 * n(), 0.0195 + 0.0015 * n()),
            bone=float(np.clip(1.1 + 0.12 * n() - 0.004 * (age - 50), 0.65, 1.4)),
            knob=float(np.clip(0.032 + 0.0002 * (age - 50) + 0.003 * n(), 0.024, 0.044)),
            gas=np.column_stack([rng.uniform(0.06, 0.27, 5), rng.uniform(0.27, 0.5, 5), rng.uniform(0.012, 0.04, 5)]),
            vessels=[np.concatenate(order) for order in zip(*(_vessels(side, rng) for side in SIDES), strict=True)],
            texture=n(size=(48, 48)).astype(np.float32),
        )


def radiograph(
    body: Body, canvas: Canvas, lesions: Mapping[str, Lesion], breath: float, supine: float = 0.0
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One exposure.

    Args:
        body: the patient.
        canvas: where on the image the patient stands.
        lesions: by finding; see `lungdet.data.phantoms.lesions`.
        breath: how far the diaphragm stands below (+) or above (-) its usual height, in units.
        supine: 0 standing, 1 lying under a portable machine: a wider heart and mediastinum.

    Returns:
        Attenuation (H, W) float32, about 0 in air and 1 behind the heart, and a mask (H, W) bool for each finding.
    """
    soft, wide = canvas.soft, body.width
    lungs = _lungs(body, breath)
    growth = body.heart * (1 + 0.06 * supine) * heart_growth(lesions)
    heart = canvas.fill(smooth(_HEART * [wide * growth, 0.96 * growth**0.35] + [0, 0.012 + 0.6 * breath]))
    air = [canvas.rounded(canvas.fill(lung), 0.085) for lung in lungs]
    rim = [_edge(lung) for lung in air]
    shadow, pump = soft(heart, 0.003), 0.45 + 0.55 * canvas.rounded(heart, 0.09, coarse=True)
    air = [soft(lung, 0.0018) * (1 - 0.75 * shadow) for lung in air]
    trees = [(lines * [wide, body.height], 0.011 * 0.69**k, 0.9 * 0.85**k) for k, lines in enumerate(body.vessels)]
    vessels = 0.095 * soft(canvas.strokes(trees[::-1]), 0.0012)
    layers = Layers(canvas, (wide, body.height), lungs, rim, heart, air, vessels, np.zeros(canvas.shape, np.float32))
    masks = apply(layers, lesions)
    lung = np.minimum(layers.air[0] + layers.air[1], 1)

    trunk = np.concatenate([_TRUNK, _FLANK * [1 + 0.12 * (body.flesh - 1), 1]])
    trunk[:, 0] *= 0.5 + 0.5 * wide
    trunk = canvas.fill(smooth(np.concatenate([trunk, trunk[::-1] * [-1, 1]])))
    arms = canvas.fill(*(smooth(_ARM * [side, 1]) for side in SIDES))
    flesh = canvas.rounded(trunk, 0.15, coarse=True)
    flesh = np.maximum(flesh, 0.62 * canvas.rounded(arms, 0.07, coarse=True))
    belly = step(canvas.y - 0.2 - breath, 16)
    total = flesh * (0.52 * body.flesh + 0.34 * belly - 0.17 * step(-0.36 - canvas.y, 22))
    if body.breast:
        for side in SIDES:
            disc = np.hypot((canvas.x - side * 0.2 * wide) / 0.135, (canvas.y - 0.13) / 0.13)
            total += 0.11 * body.breast * np.sqrt(np.clip(1 - disc**2, 0, None)) * (flesh > 0)
    total = soft(total, 0.003)
    total -= lung * (0.37 * body.flesh**0.5 - 0.08 * (canvas.y + 0.1))
    total += layers.vessels * _edge(lung) + layers.added
    total += 0.13 * shadow * pump * (1 - 0.8 * belly) + _midline(canvas, body, supine)
    bones = ribs(canvas, *body.ribs, (body.width, body.height)) * (flesh > 0.1) * (1 - 0.7 * belly)
    total += body.bone * (bones + shoulders(canvas, wide))
    total -= _bowel(canvas, body, breath)
    grain = cv2.resize(body.texture, canvas.shape[::-1], interpolation=cv2.INTER_CUBIC)
    total += 0.008 * grain * (flesh > 0)
    return total.astype(np.float32), masks


def lung_field(body: Body, canvas: Canvas, breath: float) -> np.ndarray:
    """Where the lungs are, also behind the heart, (H, W) bool; see `radiograph`."""
    return canvas.fill(*_lungs(body, breath)) > 127


def _lungs(body: Body, breath: float) -> list[np.ndarray]:
    """Their outlines."""
    return [smooth(_lung(body, side, breath)) for side in SIDES]


def _edge(air: np.ndarray) -> np.ndarray:
    """1 in the lung, falling at its rim."""
    return np.minimum(air * 2, 1)


def _lung(body: Body, side: int, breath: float) -> np.ndarray:
    outline = LUNG * [body.width, body.height]
    base = slice(6, 12)  # costophrenic angle to cardiophrenic angle
    outline[base, 1] += breath + body.domes[side > 0]
    if side > 0:
        outline[base, 1] += [0, 0, 0.004, 0.01, 0.016, 0.01]
    return outline * [side, 1]


def _midline(canvas: Canvas, body: Body, supine: float) -> np.ndarray:
    """Spine, mediastinum, aortic knob, windpipe and hila; nothing of it is far from the midline."""
    near = np.flatnonzero((np.abs(canvas.x) < 0.16).any(axis=0))
    columns = slice(near[0], near[-1] + 1)
    layer = np.zeros(canvas.shape, np.float32)
    x, y = canvas.x[:, columns], canvas.y[:, columns]
    layer[:, columns] = body.bone * spine(x - body.sway[0] * np.sin(5 * y + body.sway[1]), y) + _mediastinum(
        x, y, body, supine
    )
    throat = np.array([(0.0, -0.6), (-0.004, -0.3), (-0.008, -0.15)])
    bronchi = [(np.array([(-0.008, -0.15), (side * 0.06, -0.07)]), 0.015, 0.7) for side in SIDES]
    return layer - 0.09 * canvas.soft(canvas.strokes([(throat, 0.026, 1.0), *bronchi]), 0.003)


def _mediastinum(x: np.ndarray, y: np.ndarray, body: Body, supine: float) -> np.ndarray:
    half = 0.056 + 0.012 * supine + 0.010 * np.exp(-(((y + 0.27) / 0.05) ** 2))
    band = step(half - np.abs(x - 0.004), 150) * step(0.3 - np.abs(y + 0.05), 40)
    knob = (np.square(x - 0.056) + np.square(y + 0.165)) * (1 / body.knob**2)
    aorta = np.sqrt(np.clip(1 - knob, 0, None))
    hila = sum(
        np.exp(-np.square((x - s * 0.08) * (1 / 0.021)) - np.square((y + 0.045 + 0.015 * s) * (1 / 0.05)))
        for s in SIDES
    )
    return 0.17 * band + 0.17 * aorta + 0.13 * hila


def _bowel(canvas: Canvas, body: Body, breath: float) -> np.ndarray:
    """The stomach's gas bubble under the left dome and some bowel."""
    bubbles = np.zeros(canvas.shape, np.uint8)
    for x, y, radius in body.gas:
        axes = tuple(int(16 * canvas.unit * radius * f) for f in (1.3, 0.8))
        centre = tuple(int(v) for v in canvas.pixels(np.array([[x, y + breath]]))[0])
        cv2.ellipse(bubbles, centre, axes, 0, 0, 360, 255, -1, cv2.LINE_AA, 4)
    return 0.13 * canvas.soft(bubbles, 0.006)


def _vessels(side: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Pulmonary vessels, trees that leave the hilum, branch and thin out: (lines, 3, 2) for each order of branching."""
    angle = np.linspace(-1.25, 1.3, 7) + 0.15 * rng.normal(size=7)
    start = np.tile([0.07, -0.04 + 0.02 * side * rng.normal()], (7, 1))
    orders = []
    for order in range(5):
        n = len(angle)
        length = 0.0375 * 0.78**order * rng.uniform(0.7, 1.3, (n, 1))
        bend = angle + 0.35 * rng.normal(size=n)
        middle = start + length * np.column_stack([np.cos(angle), np.sin(angle)])
        end = middle + length * np.column_stack([np.cos(bend), np.sin(bend)])
        orders.append(np.stack([start, middle, end], axis=1) * [side, 1])
        fork = rng.uniform(0.25, 0.6, n)
        start, angle = np.tile(end, (2, 1)), np.concatenate([bend + fork, bend - fork])
    return orders
