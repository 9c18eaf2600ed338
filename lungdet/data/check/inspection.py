"""What each file's header and each prepared image look like: size, mode, depth, borders, inversion; one row an image.

Nothing here reads a label. Inversion and borders are heuristics, which the names in the report say.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from lungdet.data.dicom.header import is_dicom
from lungdet.data.dicom.pixels import form
from lungdet.data.store.images import FORMATS
from lungdet.data.store.store import Store

DARK = 16
"""Up to this value (of 255) a row or column at the edge counts as black border."""

WIDE = 0.05
"""Share of the image's area from which a black border is worth a word."""

FLAT = 3.0
"""Standard deviation (of 255 values) below which a prepared image counts as almost blank."""

INVERTED, TYPICAL_OF = -0.3, 20
"""Correlation with the typical image of the dataset below which an image counts as inverted; images that makes one."""

_BITS = {"1": 1, "I": 16}


def inspect(store: Store, roots: Mapping[str, Path]) -> pd.DataFrame:
    """One row an image of the store, in its order.

    Returns:
        `format` (PNG, ..), `mode` (Pillow's, or DICOM's photometric interpretation), `bits` a channel, `width` and
        `height` of the file in pixels, missing where it can't be opened any more; of the prepared image `border` (black
        share of the area), `wide_border`, `almost_blank`, and `inverted` (missing in datasets of too few images).
    """
    manifest = store.manifest
    files = [os.path.join(roots[d], p) for d, p in zip(manifest["dataset"], manifest["path"], strict=True)]
    with ThreadPoolExecutor() as pool:
        table = pd.DataFrame(list(pool.map(_header, files)), columns=["format", "mode", "bits", "width", "height"])
        starts = range(0, len(files), 256)
        blocks = list(pool.map(lambda start: _pixels(store.images[start : start + 256]), starts))
    border, spread, thumbnails = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    table["border"], table["wide_border"], table["almost_blank"] = border, border > WIDE, spread < FLAT
    table["inverted"] = pd.array([pd.NA] * len(table), dtype="boolean")
    for rows in manifest.groupby("dataset").indices.values():
        if len(rows) >= TYPICAL_OF:
            table.loc[rows, "inverted"] = agreement(thumbnails[rows]) < INVERTED
    return table.astype({"bits": "Int64", "width": "Int64", "height": "Int64"})


def agreement(thumbnails: np.ndarray) -> np.ndarray:
    """Correlation of each of (N, h, w) images with the pixelwise median of them all, (N,).

    Chest films agree in their coarse shape: dark lungs beside a bright mediastinum. Of 468 real images all lie above
    -.1 and 98 % above .3, so that -.3 takes none of them for inverted and finds their negatives, save 2 %.
    """
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat = flat - flat.mean(1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    typical = np.median(flat[:: -(-len(flat) // 5000)], axis=0)
    typical -= typical.mean()
    return flat @ (typical / max(np.linalg.norm(typical), 1e-6))


def _header(file: str) -> tuple:
    """What the file says of itself; the pixels are not decoded."""
    try:
        if is_dicom(Path(file)):
            return "DICOM", *form(Path(file))
        with Image.open(file, formats=FORMATS) as image:
            bits = 16 if image.mode.startswith("I;16") else _BITS.get(image.mode, 8)
            return image.format, image.mode, bits, *image.size
    except Exception:  # decoders raise whatever a damaged file leads them to; the store's pixels are still good
        return None, None, None, None, None


def _pixels(block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Black border's share of the area, standard deviation and a 16 x 16 thumbnail of each image."""
    inside = np.ones(len(block))
    for axis in (1, 2):
        lit = block.max(axis=axis) > DARK
        first, last = lit.argmax(1), lit.shape[1] - lit[:, ::-1].argmax(1)
        inside *= np.where(lit.any(1), (last - first) / lit.shape[1], 0)
    small = np.array([cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA) for image in block])
    return 1 - inside, np.array([image.std() for image in block]), small
