"""Random pixels in a store of any size, under any manifest: what a dataset of that size costs, without its images."""

from pathlib import Path

import numpy as np
import pandas as pd

from lungdet.data.datamodule import RadiographDataModule
from lungdet.data.store.store import Store


class Noise(RadiographDataModule):
    """A store that `write` wrote, and its manifest."""

    name = "noise"

    def __init__(self, store: str | Path, manifest: pd.DataFrame, **options) -> None:
        super().__init__(".", store=store, **options)
        images = np.load(self.folder / "images.npy", mmap_mode="r")
        self.store = Store(images, manifest, manifest[:0], self.settings, {}, {}, "", self.folder)


def write(folder: Path, images: int) -> None:
    """A store of so many images, 224 x 224, on disk and in the page cache as far as that goes."""
    pixels = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (images, 224, 224))
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, 256, 1 << 25, np.uint8)  # each image is a piece of this: to draw all takes a minute
    for image, start in zip(pixels, generator.integers(0, len(drawn) - 224 * 224, images), strict=True):
        image[:] = drawn[start : start + 224 * 224].reshape(224, 224)
    pixels.flush()  # now, not during what is measured


def small(images: int) -> pd.DataFrame:
    """A manifest of so many patients with an image each."""
    rows = np.arange(images)
    names = pd.Series(rows).astype("str")
    return pd.DataFrame({"image_id": names, "patient_id": names, "visit": 0, "age": 50.0, "abnormal": rows % 2.0})
