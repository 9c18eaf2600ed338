"""The bones of a synthetic chest, as attenuation: ribs, spine, clavicles, scapulae, humeri."""

import numpy as np

from lungdet.data.phantoms.canvas import SIDES, Canvas, smooth, step

LUNG = np.array(
    [
        *[(0.13, -0.365), (0.205, -0.33), (0.262, -0.235), (0.298, -0.1), (0.318, 0.06), (0.328, 0.18)],
        *[(0.332, 0.262), (0.29, 0.212), (0.24, 0.18), (0.18, 0.165), (0.12, 0.178), (0.07, 0.205)],
        *[(0.062, 0.1), (0.055, 0.0), (0.052, -0.1), (0.056, -0.2), (0.066, -0.29), (0.088, -0.345)],
    ]
)
"""The right half of a lung's outline, x away from the midline: apex, side, costophrenic angle, dome, hilum."""
_SCAPULA = np.array(
    [(0.245, -0.35), (0.275, -0.25), (0.305, -0.12), (0.325, -0.04), (0.345, -0.06), (0.365, -0.16), (0.405, -0.26)]
)


def ribs(canvas: Canvas, pitch: float, drop: float, width: float, scale: tuple[float, float]) -> np.ndarray:
    """Posterior and anterior arcs of the ribs, and the edge of the rib cage."""
    height = scale[1]
    i = np.arange(11)
    start = (pitch * i - 0.365) * height
    end = start + drop * (0.55 + 0.10 * i)
    reach, lift = _wall(scale, end), 0.028 + 0.003 * i
    back = _bezier(
        (0.03 + 0 * i, start), (0.45 * reach, start - lift), (0.98 * reach, start - 0.3 * lift), (reach, end)
    )
    front = _bezier(
        (reach, end), (0.98 * reach, end + 0.055), (0.75 * reach, end + 0.1), (0.12 + 0.01 * i, end + 0.115 - 0.004 * i)
    )[:7]
    y = np.linspace(-0.33, 0.4, 24) * height
    rim = np.column_stack([_wall(scale, y), y])[None]
    back, front, rim = (np.concatenate([lines, lines * [-1, 1]]) for lines in (back, front, rim))
    posterior = canvas.strokes([(back, width, 1.0), (back, 0.6 * width, 0.75)])
    anterior = canvas.strokes([(front, 1.1 * width, 0.9), (front, 0.65 * width, 0.7)])
    edge = canvas.soft(canvas.strokes([(rim, 0.011, 1.0)]), 0.005) * step(0.2 - canvas.y, 30)
    return 0.092 * canvas.soft(posterior, 0.0025) + 0.05 * canvas.soft(anterior, 0.0035) + 0.05 * edge


def _wall(scale: tuple[float, float], y: np.ndarray) -> np.ndarray:
    """Half-width of the rib cage at height y."""
    return scale[0] * (0.012 + np.interp(y / scale[1], LUNG[:7, 1], LUNG[:7, 0]))


def _bezier(*points: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Cubic curves (curves, 14, 2) through four points each."""
    t = np.linspace(0, 1, 14)[:, None]
    a, b, c, d = (np.stack(p, axis=-1)[:, None] for p in points)
    return (1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * d


def spine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Vertebrae with discs, pedicles and spinous processes."""
    half = 0.034 + 0.012 * (y + 0.4)
    column = step(half - np.abs(x), 220)
    phase = np.cos(2 * np.pi * y / (0.050 + 0.012 * (y + 0.4)))
    disc = np.clip(phase - 0.35, 0, 1) * 0.38
    pedicles = np.exp(-(((np.abs(x) - 0.62 * half) / 0.007) ** 2)) * np.clip(0.2 - phase, 0, 1)
    process = np.exp(-((x / 0.006) ** 2)) * np.clip(-phase, 0, 1)
    return column * (0.105 - 0.18 * disc + 0.06 * pedicles + 0.06 * process)


def shoulders(canvas: Canvas, wide: float) -> np.ndarray:
    """Clavicles, scapulae and the upper arms' bones."""
    bones, blades = [], []
    collar = np.array([(0.025, -0.285), (0.1, -0.325), (0.2, -0.345), (0.29, -0.385), (0.385, -0.372)]) * [wide, 1]
    for side in SIDES:
        curve = smooth(collar, closed=False) * [side, 1]
        shaft = np.array([(0.465, -0.3), (0.5, -0.2), (0.555, 0.05), (0.60, 0.3)]) * [side, 1]
        bones += [(curve, 0.025, 0.85), (curve, 0.014, 0.6), (shaft, 0.05, 1.0), (shaft, 0.03, 0.62)]
        bones += [(np.array([(0.447, -0.315), (0.453, -0.31)]) * [side, 1], 0.085, 0.95)]
        blades += [(smooth(_SCAPULA, closed=False) * [side, 1], 0.008, 1.0)]
        blades += [(np.array([(0.26, -0.335), (0.36, -0.345), (0.42, -0.385)]) * [side, 1], 0.012, 0.9)]
    blade = canvas.fill(*(smooth(np.concatenate([_SCAPULA, [(0.37, -0.33)]])) * [side, 1] for side in SIDES))
    return (
        0.12 * canvas.soft(canvas.strokes(bones), 0.003)
        + 0.05 * canvas.soft(canvas.strokes(blades), 0.0025)
        + 0.03 * canvas.soft(blade, 0.004)
    )
