"""A sheet to draw a synthetic radiograph on, in the patient's coordinates.

The origin is in the middle of the chest, x goes to the image's right (the patient's left, where the heart is), y down;
1 is the short side of the image.
"""

from collections.abc import Iterable

import cv2
import numpy as np

SIDES: tuple[int, int] = (-1, 1)
"""-1 is the patient's right, on the image's left."""
STEPS = 6


class Canvas:
    """An image to draw on in the patient's coordinates.

    Args:
        shape: height and width in pixels.
        scale: image's short side over the coordinates' unit.
        angle: of the patient, in radians, clockwise.
        shift: of the patient, in units.
    """

    def __init__(
        self, shape: tuple[int, int], scale: float = 1.0, angle: float = 0.0, shift: Iterable[float] = (0, 0)
    ) -> None:
        self.shape = shape
        self.unit = min(shape) * scale
        cos, sin = np.cos(angle), np.sin(angle)
        self.turn = self.unit * np.array([[cos, sin], [-sin, cos]])  # applied from the right: rows are points
        self.centre = np.array(shape[::-1]) / 2 - 0.5 + min(shape) * np.asarray(tuple(shift))
        columns, rows = (np.arange(n, dtype=np.float32) for n in shape[::-1])
        (a, b), (c, d) = np.linalg.inv(self.turn).astype(np.float32)
        columns, rows = columns - np.float32(self.centre[0]), rows - np.float32(self.centre[1])
        self.x = columns[None, :] * a + rows[:, None] * c
        self.y = columns[None, :] * b + rows[:, None] * d

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Points as OpenCV wants them, in sixteenths of a pixel."""
        return np.rint((np.asarray(points) @ self.turn + self.centre) * 16).astype(np.int32)

    def fill(self, *outlines: np.ndarray) -> np.ndarray:
        """1 inside any of the outlines, 0 outside; uint8 0..255 with smooth edges."""
        layer = np.zeros(self.shape, np.uint8)
        for outline in outlines:
            cv2.fillPoly(layer, [self.pixels(outline)], 255, cv2.LINE_AA, 4)
        return layer

    def strokes(self, lines: Iterable[tuple[np.ndarray, float, float]], closed: bool = False) -> np.ndarray:
        """Lines of (points (n, 2) or (lines, n, 2), width in units, value 0..1), later ones over earlier ones; uint8.

        A line thinner than a pixel is drawn a pixel wide and fainter.
        """
        layer = np.zeros(self.shape, np.uint8)
        for points, width, value in lines:
            thickness = max(1, round(width * self.unit))
            shade = int(255 * value * min(1.0, width * self.unit / thickness))
            curves = self.pixels(points)
            cv2.polylines(
                layer, list(curves) if curves.ndim == 3 else [curves], closed, shade, thickness, cv2.LINE_AA, 4
            )
        return layer

    def soft(self, layer: np.ndarray, sigma: float) -> np.ndarray:
        """The layer as float32, blurred by sigma units; what `fill` and `strokes` drew becomes 0..1."""
        if layer.dtype == np.uint8:
            layer = layer.astype(np.float32) * np.float32(1 / 255)
        return cv2.GaussianBlur(layer, (0, 0), max(sigma * self.unit, 0.3))

    def rounded(self, layer: np.ndarray, radius: float, coarse: bool = False) -> np.ndarray:
        """Thickness of a body of this outline that is round at its edge, 0..1 at `radius` units from the edge.

        Coarse is computed at half the resolution, for what has a soft edge anyway.
        """
        if coarse:
            whole = self.shape[::-1]
            half = cv2.resize(layer, (whole[0] // 2, whole[1] // 2), interpolation=cv2.INTER_AREA)
            return cv2.resize(self.rounded(half, radius / 2), whole, interpolation=cv2.INTER_LINEAR)
        depth = cv2.distanceTransform((layer > 127).view(np.uint8), cv2.DIST_L2, 3) * np.float32(
            1 / (radius * self.unit)
        )
        np.minimum(depth, 1, out=depth)
        return np.sqrt(depth * (2 - depth))


def smooth(points: np.ndarray, closed: bool = True) -> np.ndarray:
    """A Catmull-Rom curve through the points, with `STEPS` places from each to the next."""
    if closed:
        padded = np.concatenate([points[-1:], points, points[:2]])
    else:
        padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    a, b, c, d = padded[:-3, None], padded[1:-2, None], padded[2:-1, None], padded[3:, None]
    t = (np.arange(STEPS) / STEPS)[None, :, None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return np.concatenate([curve.reshape(-1, 2), points[:1] if closed else points[-1:]])


def step(distance: np.ndarray, steepness: float) -> np.ndarray:
    """0 to 1 where `distance` passes through 0."""
    return 0.5 + 0.5 * np.tanh(distance * (0.5 * steepness))
