"""The contact sheet: some images of each kind and those that look odd, as small JPEGs that a page can hold."""

import base64
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from lungdet.data.store.store import Store

SIDE = 144
"""Of a tile, pixels."""


class Tile(NamedTuple):
    """An image as a data address, its dataset and its name in it, and a word about it."""

    source: str
    dataset: str
    name: str
    word: str


class Row(NamedTuple):
    """Tiles under a heading."""

    title: str
    tiles: list[Tile]
    mixed: bool  # of several datasets, so that tiles have to name theirs


def contact_sheet(store: Store, seen: pd.DataFrame, links: pd.DataFrame, each: int = 6) -> list[Row]:
    """Some normal and abnormal images of each dataset, the same ones every time, and the oddest of all.

    Args:
        store: the prepared images.
        seen: from `inspection.inspect`.
        links: from `leaks.links`.
        each: images in a row.
    """
    manifest, rng = store.manifest, np.random.default_rng(0)
    sheet = []
    for dataset, members in manifest.groupby("dataset"):
        for value, word in ((0, "normal"), (1, "abnormal"), (None, "no label")):
            chosen = members["abnormal"].isna() if value is None else members["abnormal"] == value
            rows = members.index[chosen].to_numpy()
            if len(rows):
                drawn = np.sort(rng.choice(rows, min(each, len(rows)), replace=False))
                sheet.append(
                    Row(f"{dataset}, {word}", [_tile(store, row, _findings(manifest, row)) for row in drawn], False)
                )
    inverted = np.flatnonzero(seen["inverted"].fillna(False))[: 2 * each]
    bordered = seen.loc[seen["wide_border"], "border"].nlargest(each).index
    blank = np.flatnonzero(seen["almost_blank"])[:each]
    pairs = links.head(each)
    sheet += [
        Row("Look inverted", [_tile(store, row, "") for row in inverted], True),
        Row(
            "Widest black borders",
            [_tile(store, row, f"{seen['border'][row]:.0%} of the area") for row in bordered],
            True,
        ),
        Row("Almost blank", [_tile(store, row, "") for row in blank], True),
        Row(
            "Copies, side by side",
            [
                _tile(store, row, "identical" if pair.kind == "identical" else f"correlation {pair.correlation:.2f}")
                for pair in pairs.itertuples()
                for row in (pair.row_a, pair.row_b)
            ],
            True,
        ),
    ]
    return [row for row in sheet if row.tiles]


def _tile(store: Store, row: int, word: str) -> Tile:
    image = store.images[row]
    how = cv2.INTER_AREA if len(image) > SIDE else cv2.INTER_NEAREST
    ok, jpeg = cv2.imencode(".jpg", cv2.resize(image, (SIDE, SIDE), interpolation=how), [cv2.IMWRITE_JPEG_QUALITY, 82])
    if not ok:
        raise RuntimeError("OpenCV was built without JPEG")
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    dataset = store.manifest["dataset"][row]
    return Tile(source, dataset, store.manifest["image_id"][row].removeprefix(f"{dataset}/"), word)


def _findings(manifest: pd.DataFrame, row: int) -> str:
    labels = manifest.loc[row, "atelectasis":"tuberculosis"]
    return ", ".join(name.replace("_", " ") for name in labels.index[labels == 1])
