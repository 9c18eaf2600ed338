"""Small noisy images, and the stores made of them."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lungdet.data.store.images import Settings

SMALL = Settings(size=16)


def table(*paths, dataset="toy"):
    """The manifest of these images."""
    ids = [f"{dataset}/{Path(path).stem}" for path in paths]
    return pd.DataFrame({"image_id": ids, "dataset": dataset, "path": list(paths), "abnormal": 0.0})


def write(folder, count=6, scale=1):
    """`count` noisy images, each of its own brightness; 16 bit where scaled."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for i in range(count):
        grey = rng.integers(20 * i, 20 * i + 100, (40, 30)).astype(np.uint8)
        arrays[f"{i:02d}.png"] = grey if scale == 1 else grey.astype(np.uint16) * scale
        Image.fromarray(arrays[f"{i:02d}.png"]).save(folder / f"{i:02d}.png")
    return arrays


def stores(folder):
    """What is in a folder of stores, or in a store."""
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
