"""The contact sheet: some images of each kind and those that look odd, as small JPEGs that a page can hold."""

import cv2
import numpy as np
import pandas as pd

from lungdet.data.store.store import Store
from lungdet.page.document import Picture

SIDE = 144
"""Of a tile, pixels."""
LENGTH = 6
"""Of a row, tiles."""


def contact_sheet(store: Store, appearance: pd.DataFrame, links: pd.DataFrame) -> dict[str, list[Picture]]:
    """Some normal and abnormal images of each dataset, the same ones every time, and the oddest of all.

    Args:
        store: the prepared images.
        appearance: from `inspection.inspect`.
        links: from `leaks.links`.

    Returns:
        Rows of images by heading.
    """
    manifest, rng, sheet = store.manifest, np.random.default_rng(0), {}
    for dataset, members in manifest.groupby("dataset"):
        label = members["abnormal"]
        for word, chosen in (("normal", label == 0), ("abnormal", label == 1), ("no label", label.isna())):
            rows = members.index[chosen].to_numpy()
            drawn = np.sort(rng.choice(rows, min(LENGTH, len(rows)), replace=False)) if len(rows) else []
            tiles = [_tile(store, row, _findings(manifest, row), of_several=False) for row in drawn]
            sheet[f"{dataset}, {word}"] = tiles
    border = appearance.loc[appearance["wide_border"], "border"].nlargest(LENGTH)
    pairs = [
        (row, "identical" if pair.kind == "identical" else f"correlation {pair.correlation:.2f}")
        for pair in links.head(LENGTH).itertuples()
        for row in (pair.row_a, pair.row_b)
    ]
    odd = {
        "Look inverted": [(row, "") for row in np.flatnonzero(appearance["inverted"].fillna(False))[: 2 * LENGTH]],
        "Widest black borders": [(row, f"{share:.0%} of the area") for row, share in border.items()],
        "Almost blank": [(row, "") for row in np.flatnonzero(appearance["almost_blank"])[:LENGTH]],
        "Copies, side by side": pairs,
    }
    sheet |= {title: [_tile(store, row, word) for row, word in rows] for title, rows in odd.items()}
    return {title: tiles for title, tiles in sheet.items() if tiles}


def _tile(store: Store, row: int, word: str, of_several: bool = True) -> Picture:
    """An image and a word about it; `of_several` datasets, it has to name its own."""
    image = store.images[row]
    method = cv2.INTER_AREA if len(image) > SIDE else cv2.INTER_NEAREST
    image = cv2.resize(image, (SIDE, SIDE), interpolation=method)
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])
    image_id, dataset = store.manifest["image_id"][row], store.manifest["dataset"][row]
    name = image_id if of_several else image_id.removeprefix(f"{dataset}/")
    return Picture(name, jpeg.tobytes(), name, f"{name}: {word}" if word else name)


def _findings(manifest: pd.DataFrame, row: int) -> str:
    labels = manifest.loc[row, "atelectasis":"tuberculosis"]
    return ", ".join(name.replace("_", " ") for name in labels.index[labels == 1])
