"""The depth of 16-bit files: decided for a dataset from all of them, never by each image's own range."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lungdet.errors import first_few

DEPTHS = (8, 10, 12, 14, 16)
"""The bit depths that detectors have, from which a dataset's is chosen."""

_FEW = 1 / 10  # of a dataset's 16-bit images, or a single one: more are no outliers but a scanner of its own


@dataclass(frozen=True)
class Outliers:
    """16-bit images whose values the range of no other one explains: for their sake all others turn dark.

    Attributes:
        images: the largest value of each, by image id.
        of: how many 16-bit images the dataset has.
        others: the largest value in all the others.
        bits: the depth that all are read with.
    """

    images: Mapping[str, int]
    of: int
    others: int
    bits: int

    def sentence(self, dataset: str, alone: bool) -> str:
        """What is wrong, and what can be done.

        Args:
            dataset: whose images they are.
            alone: no other dataset has 16-bit files.
        """
        named = first_few(f"{image} ({value})" for image, value in self.images.items())
        greys = round(255 * self.others / ((1 << self.bits) - 1)) + 1
        choices = (depth(self.others), self.bits)
        keys = [f"data.bits={bits}" if alone else f"'data.bits={{{dataset}: {bits}}}'" for bits in choices]
        return (
            f"{dataset}: {len(self.images)} of {self.of} 16-bit images hold values that the range of no other (up to "
            f"{self.others}) explains: {named}. All are read as {self.bits} bit, so the others have {greys} of 256 "
            f"greys. Look at these files (a marker, a defect?): {keys[0]} leaves them out, {keys[1]} "
            f"takes them as they are without this warning"
        )


def depth(largest: int) -> int:
    """The smallest usual depth that holds a value."""
    return next(bits for bits in DEPTHS if largest < 1 << bits)


def greys(bits: int) -> np.ndarray:
    """What each value of a 16-bit file is in 8 bits, (65536,) uint8, where the files are so many bits deep."""
    return np.rint(np.arange(1 << 16) * (255 / ((1 << bits) - 1))).clip(0, 255).astype(np.uint8)


def outlying(largest: np.ndarray) -> np.ndarray:
    """Which images are `Outliers`: few, each above twice the range of all others, which would do with less depth.

    Args:
        largest: (N,) the largest value of each image.

    Returns:
        (N,) bool.
    """
    values = np.sort(largest)
    limit = max(1, int(len(values) * _FEW))
    for first in range(max(1, len(values) - limit), len(values)):
        others = values[first - 1]
        if values[first] > 2 * others and depth(others) < depth(values[-1]):
            return largest > others
    return np.zeros(len(largest), bool)
