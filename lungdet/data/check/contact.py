"""The contact sheet: some images of each kind and those that look odd, as small JPEGs that a page can hold."""

from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from lungdet.data.store.store import Store
from lungdet.page.document import Picture

SIDE = 144
"""Of a tile, pixels."""


class Row(NamedTuple):
    """Tiles under a heading."""

    title: str
    tiles: list[Picture]


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
                tiles = [_tile(store, row, _findings(manifest, row), of_several=False) for row in drawn]
                sheet.append(Row(f"{dataset}, {word}", tiles))
    inverted = np.flatnonzero(seen["inverted"].fillna(False))[: 2 * each]
    bordered = seen.loc[seen["wide_border"], "border"].nlargest(each).index
    blank = np.flatnonzero(seen["almost_blank"])[:each]
    pairs = links.head(each)
    sheet += [
        Row("Look inverted", [_tile(store, row, "") for row in inverted]),
        Row("Widest black borders", [_tile(store, row, f"{seen['border'][row]:.0%} of the area") for row in bordered]),
        Row("Almost blank", [_tile(store, row, "") for row in blank]),
        Row(
            "Copies, side by side",
            [
                _tile(store, row, "identical" if pair.kind == "identical" else f"correlation {pair.correlation:.2f}")
                for pair in pairs.itertuples()
                for row in (pair.row_a, pair.row_b)
            ],
        ),
    ]
    return [row for row in sheet if row.tiles]


def _tile(store: Store, row: int, word: str, of_several: bool = True) -> Picture:
    """An image and a word about it; `of_several` datasets, it has to name its own."""
    image = store.images[row]
    interpolation = cv2.INTER_AREA if len(image) > SIDE else cv2.INTER_NEAREST
    ok, jpeg = cv2.imencode(
        ".jpg", cv2.resize(image, (SIDE, SIDE), interpolation=interpolation), [cv2.IMWRITE_JPEG_QUALITY, 82]
    )
    if not ok:
        raise RuntimeError("OpenCV was built without JPEG")
    image_id, dataset = store.manifest["image_id"][row], store.manifest["dataset"][row]
    name = image_id if of_several else image_id.removeprefix(f"{dataset}/")
    return Picture(name, jpeg.tobytes(), name, f"{name}: {word}" if word else name)


def _findings(manifest: pd.DataFrame, row: int) -> str:
    labels = manifest.loc[row, "atelectasis":"tuberculosis"]
    return ", ".join(name.replace("_", " ") for name in labels.index[labels == 1])
