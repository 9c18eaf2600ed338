"""Whether two radiographs are the same exposure: the correlation of their local contrast once they are aligned."""

import cv2
import numpy as np

SIDE = 224
"""Larger images are compared at this size, which the thresholds were measured at."""


def aligned_correlation(first: np.ndarray, second: np.ndarray, negative: bool = False) -> float:
    """How well two images agree once the second is shifted, scaled and sheared onto the first, 0 (unlike) to 1.

    Args:
        first: (H, H) uint8.
        second: (H, H) uint8.
        negative: compare with the negative of `second`.

    The affine alignment is ECC (Evangelidis and Psarakis, IEEE TPAMI 30(10), 2008), first at 56 x 56, where nearly all
    pairs that are no copies already show it; those count as 0.
    """
    first, second = (at_most(image, SIDE) for image in (first, 255 - second if negative else second))
    side, warp = len(first), np.eye(2, 3, dtype=np.float32)
    try:
        if side >= 112:
            small = [at_most(_detail(at_most(image, 112)), 56) for image in (first, second)]
            agreement, warp = cv2.findTransformECC(*small, warp, cv2.MOTION_AFFINE, (3, 30, 1e-3), None, 3)
            if agreement < 0.65:
                return 0.0
            warp[:, 2] *= side / 56
        first, second = _detail(first), _detail(second)
        _, warp = cv2.findTransformECC(first, second, warp, cv2.MOTION_AFFINE, (3, 30, 1e-3), None, 5)
    except cv2.error:  # nothing in common to climb towards
        return 0.0
    second = cv2.warpAffine(second, warp, (side, side), flags=_WARP, borderValue=float("nan"))
    edge = max(1, side // 28)  # the surroundings of what a crop cut off are not the same
    inner = np.s_[edge:-edge, edge:-edge]
    overlap = np.isfinite(second[inner])
    if overlap.mean() < 0.5:
        return 0.0
    pair = first[inner][overlap], second[inner][overlap]
    return float(np.corrcoef(*pair)[0, 1]) if min(values.std() for values in pair) > 0 else 0.0


_WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


def enough_correlation(side: int) -> float:
    """From which correlation images of this side are copies: .75 at 224 pixels, .80 at 96, .85 at 64.

    Small images hold less that tells one chest from another, so more agreement is asked of them; at 31 pixels and below
    nothing is enough. The two numbers are chosen such that unrelated images stay clear of it at every size.
    """
    return 0.71 + 9 / min(side, SIDE)


def _detail(image: np.ndarray) -> np.ndarray:
    """Local contrast: each pixel's difference from its surroundings over their spread, float32.

    The coarse shape of a chest, which all films share, falls out, and so do brightness, contrast, gamma and borders.
    """
    sigma = max(1.2, len(image) / 80)
    image = image.astype(np.float32)
    image -= cv2.GaussianBlur(image, (0, 0), sigma)
    spread = cv2.GaussianBlur(image * image, (0, 0), sigma)
    return image / np.sqrt(spread + 0.05 * spread.mean() + 1e-6)


def at_most(image: np.ndarray, side: int) -> np.ndarray:
    """A square image, shrunk to this side where it is larger."""
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) if len(image) > side else image
