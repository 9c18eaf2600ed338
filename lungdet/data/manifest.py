"""The manifest: one table, one row an image, that every dataset is read into and everything else reads from."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lungdet.errors import InputError
from lungdet.findings import FINDINGS

DESCRIPTION: tuple[str, ...] = ("image_id", "dataset", "path", "patient_id", "visit", "age", "sex", "view")
COLUMNS: tuple[str, ...] = (*DESCRIPTION, *FINDINGS, "abnormal")
"""The columns of a manifest, in order.

- `image_id`: unique, `<dataset>/<file stem>`.
- `dataset`: the source's name.
- `path`: the image file, relative to the dataset's root, with forward slashes.
- `patient_id`: unique across datasets, `<dataset>/<the source's own number>`.
- `visit`: 0, 1, .. in time order within the patient.
- `age`: years (float), NaN where unknown. `sex`: "F", "M", "O" or missing. `view`: "PA", "AP" .. or missing.
- one column a finding and `abnormal`: float32, 1 / 0 / NaN, NaN where the source does not say.
"""


@dataclass(frozen=True)
class Sheet:
    """What a dataset's data sheet says that a report goes by; a run records it with the dataset.

    Attributes:
        of: images of the whole dataset; None where nobody says.
        labels_from: how labels came about: `reports`, mined by text analysis, or `readings` of each image; None where
            the sheet does not say.
        abnormal: what `abnormal` means, any of the 14 `findings` or `tuberculosis`; None likewise.
        synthetic: drawn images, of no patient.
    """

    of: int | None = None
    labels_from: str | None = None
    abnormal: str | None = None
    synthetic: bool = False


class ManifestError(InputError):
    """A table that is no valid manifest; the message names the column, the value and what to do."""


def manifest(description: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """A validated manifest from a dataset's descriptions and its finding columns (same index)."""
    table = pd.concat([description, labels], axis=1).reindex(columns=list(COLUMNS))
    table["visit"] = table["visit"].astype("int32")
    table["age"] = table["age"].astype("float32")
    for column in ("sex", "view"):
        table[column] = table[column].astype("str")
    for column in (*FINDINGS, "abnormal"):
        table[column] = table[column].astype("float32")
    return validate(table.reset_index(drop=True))


def validate(table: pd.DataFrame) -> pd.DataFrame:
    """The same table, if it keeps the contract of `COLUMNS`.

    Raises:
        ManifestError: a value that must be there is not, an image or a patient's visit stands twice, or a label is
            something other than 0, 1 or NaN.
    """
    if missing := [column for column in COLUMNS if column not in table]:
        raise ManifestError(f"no column {', '.join(missing)}; `lungdet.data.manifest.manifest` makes a whole table")
    for column in ("image_id", "dataset", "path", "patient_id", "visit"):
        empty = table[column].isna()
        if empty.any():
            raise ManifestError(
                f"column {column}: no value in row {int(np.flatnonzero(empty)[0])}; every image needs one"
            )
    for key in (["image_id"], ["patient_id", "visit"]):
        repeated = table.duplicated(key, keep=False)
        if repeated.any():
            first = table.loc[repeated, ["image_id", *key]].iloc[0].to_dict()
            raise ManifestError(f"{' + '.join(key)} stands on {int(repeated.sum())} rows more than once, first {first}")
    for column in (*FINDINGS, "abnormal"):
        wrong = ~table[column].isin([0, 1]) & table[column].notna()
        if wrong.any():
            row = table.loc[wrong].iloc[0]
            raise ManifestError(f"{row.image_id}: column {column} is {row[column]}; a label is 0, 1 or empty (unknown)")
    return table


def merge(manifests: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Several datasets' manifests as one; ids carry the dataset's name, so nothing collides unless read twice."""
    return validate(pd.concat(list(manifests), ignore_index=True))


def identity(manifest: pd.DataFrame) -> dict[str, dict]:
    """What tells the images of a manifest from others, whatever their order: a hash and counts of each kind.

    `images` are their ids; `patients`, which images are of one and what is known of each; `ids`, those that patients go
    by; `labels`.
    """
    manifest = manifest.sort_values("image_id", ignore_index=True)
    patients = int(manifest["patient_id"].nunique())
    described = manifest[["visit", "age", "sex", "view"]].assign(patient=first_image(manifest))
    labels = manifest[["abnormal", *FINDINGS]].fillna(-1).to_numpy(np.int8)
    counts = {"known": int((labels >= 0).sum()), "positive": int((labels == 1).sum())}
    return {
        "images": {"hash": short_hash("\n".join(manifest["image_id"])), "images": len(manifest), "patients": patients},
        "patients": {"hash": short_hash(described.to_csv(header=False, index=False)), "patients": patients},
        "ids": {"hash": short_hash("\n".join(manifest["patient_id"]))},
        "labels": {"hash": short_hash(labels.tobytes()), **counts},
    }


def first_image(table: pd.DataFrame) -> pd.Series:
    """Of each image the first, by its id, of the same patient: tells patients apart whatever ids they go by."""
    return table.groupby("patient_id")["image_id"].transform("min")


def short_hash(content: str | bytes) -> str:
    """What tells a content from others: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]


def visits_in_order(table: pd.DataFrame, by: list[str]) -> pd.Series:
    """Visit numbers 0, 1, .. within each patient, in the order of the columns `by`."""
    ordered = table.sort_values(["patient_id", *by], kind="stable")
    return ordered.groupby("patient_id", sort=False).cumcount().reindex(table.index).astype("int32")
