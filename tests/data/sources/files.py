"""Files that tests of the readers need to be there, whatever is in them."""

from pathlib import Path

import cv2
import numpy as np


def image(path: Path) -> Path:
    """A grey image of this name, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((8, 8), 90, np.uint8))
    return path
