"""The public datasets as their publishers count them: is a copy whole, and which images does it lack?"""

from pathlib import Path

import pandas as pd

from lungdet.data.sources import chestxray14, montgomery, shenzhen
from lungdet.data.sources.chestxray14_tables import RELEASES, read_table

# Montgomery's numbers have gaps; these are the runs of its normal images and the numbers of those with tuberculosis.
_MONTGOMERY_NORMAL = (
    *((1, 6), (8, 8), (11, 11), (13, 13), (15, 17), (19, 24), (26, 31), (35, 35), (38, 38), (40, 49), (51, 64)),
    *((68, 72), (74, 75), (77, 77), (79, 87), (89, 92), (94, 97), (99, 103)),
)
_MONTGOMERY_TUBERCULOSIS = (
    *(104, 108, 113, 117, 126, 140, 141, 142, 144, 150, 162, 166, 170, 173, 182, 188, 194, 195, 196, 203, 213, 218),
    *(223, 228, 243, 251, 253, 254, 255, 258, 264, 266, 275, 282, 289, 294, 301, 309, 311, 313, 316, 331, 334, 338),
    *(348, 350, 352, 354, 362, 367, 369, 372, 375, 383, 387, 390, 393, 399),
)

COUNTS: dict[str, dict[str, int]] = {
    "chestxray14": {"images": chestxray14.IMAGES, "patients": chestxray14.PATIENTS},
    "montgomery": {
        "images": montgomery.IMAGES,
        "patients": montgomery.PATIENTS,
        "normal": montgomery.NORMAL,
        "abnormal": montgomery.TUBERCULOSIS,
    },
    "shenzhen": {"images": shenzhen.IMAGES, "normal": shenzhen.NORMAL, "abnormal": shenzhen.TUBERCULOSIS},
}
"""What each whole dataset holds."""


def verify(
    name: str, present: pd.DataFrame, excluded: pd.DataFrame, root: Path, release: int = 2020
) -> dict[str, object]:
    """How a folder's copy of an official dataset compares with the whole of it.

    Args:
        name: the dataset, of `COUNTS`.
        present: the manifest of the images that are there, of this dataset.
        excluded: images that are there but unusable, with `image_id` and `reason`.
        root: the dataset's folder.
        release: of ChestX-ray14's table.

    Returns:
        `expected` and `found` counts; `missing` names, `unusable` names with reasons, `unexpected` names; `whole`, true
        where nothing is missing, unusable or unexpected and all counts agree; `note` where names can't be told.
    """
    names, note = _names(name, root, release)
    names_present, damaged = set(present["image_id"]), excluded[excluded["image_id"].isin(present["image_id"])]
    counts = {
        "images": len(present),
        "patients": int(present["patient_id"].nunique()),
        "normal": int((present["abnormal"] == 0).sum()),
        "abnormal": int((present["abnormal"] == 1).sum()),
    }
    counts = {key: counts[key] for key in COUNTS[name]}
    differing = {
        "missing": sorted(names - names_present),
        "unusable": dict(zip(damaged["image_id"], damaged["reason"], strict=True)),
        "unexpected": sorted(names_present - names),
    }
    whole = counts == COUNTS[name] and not any(differing.values())
    return {"whole": whole, "expected": COUNTS[name], "found": counts, **differing, "note": note}


def expected_names(name: str) -> set[str]:
    """The image ids of Montgomery or Shenzhen, whose file names say all."""
    if name == "montgomery":
        normal = [number for first, last in _MONTGOMERY_NORMAL for number in range(first, last + 1)]
        labels = dict.fromkeys(normal, 0) | dict.fromkeys(_MONTGOMERY_TUBERCULOSIS, 1)
        prefix = montgomery.MontgomeryDataModule.prefix
    else:
        labels = {number: int(number > shenzhen.NORMAL) for number in range(1, shenzhen.IMAGES + 1)}
        prefix = shenzhen.ShenzhenDataModule.prefix
    return {f"{name}/{prefix}_{number:04d}_{label}" for number, label in labels.items()}


def _names(name: str, root: Path, release: int) -> tuple[set[str], str | None]:
    if name != "chestxray14":
        return expected_names(name), None
    names = set(read_table(root, release)["image_id"])
    note = (
        f"{RELEASES[release]} lists {len(names):,} of the {chestxray14.IMAGES:,} images, so only those it lists can be "
        "named as missing"
    )
    return names, note if len(names) != chestxray14.IMAGES else None
