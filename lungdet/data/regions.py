"""Where disease is known to be in an image: boxes or true masks, as squares like the prepared images."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from lungdet.data.store.images import Settings, resize


class Regions(NamedTuple):
    """Of one image: where each finding is (size, size) bool, and where the lungs are, None where that is not known."""

    findings: Mapping[str, np.ndarray]
    lungs: np.ndarray | None = None


def prepared(mask: np.ndarray, settings: Settings) -> np.ndarray:
    """A mask (h, w) bool of a whole image as the square (size, size) that the image became.

    A pixel belongs to it of which the mask covers half; a region too small for that is the pixel it covers most.
    """
    share = resize(mask.astype(np.uint8) * np.uint8(255), settings.size, settings.resize)
    return share >= max(1, min(128, int(share.max())))
