"""A dataset in numbers: what there is of everything, in all, by dataset and by part of the split."""

import numpy as np
import pandas as pd

from lungdet.data.splitting.splits import PARTS, UNUSED, Split
from lungdet.findings import FINDINGS

UNKNOWN = "unknown"


def describe(
    manifest: pd.DataFrame, appearance: pd.DataFrame, links: pd.DataFrame, excluded: pd.DataFrame, split: Split | None
) -> dict:
    """The numbers of every group of images, JSON-ready.

    Args:
        manifest: N prepared images.
        appearance: N rows, from `inspection.inspect`.
        links: from `leaks.links`: images that stand twice, whoever the patients are.
        excluded: images that could not be prepared, with `image_id` and `reason`.
        split: who is in which part; None where there is none.

    Returns:
        `all`, `datasets` and `parts` (a group each by name) and `datasets_and_parts` (by dataset, then part); what a
        group holds: `group`.
    """
    columns = {name: appearance[name].to_numpy() for name in appearance}
    table = manifest.assign(**columns, **_copies(manifest, links), part="")
    if split is not None:
        table["part"] = table["image_id"].map(split.table.set_index("image_id")["split"])
    dataset_of = excluded["image_id"].str.split("/").str[0]
    datasets = {name: table[table["dataset"] == name] for name in sorted({*table["dataset"], *dataset_of})}
    parts = [name for name in (*PARTS, UNUSED) if (table["part"] == name).any()]
    return {
        "all": group(table, excluded),
        "datasets": {name: group(rows, excluded[dataset_of == name]) for name, rows in datasets.items()},
        "parts": {part: group(table[table["part"] == part]) for part in parts},
        "datasets_and_parts": {
            name: {part: group(rows[rows["part"] == part]) for part in parts} for name, rows in datasets.items()
        },
    }


def group(table: pd.DataFrame, excluded: pd.DataFrame | None = None) -> dict:
    """The numbers of some images.

    Args:
        table: a manifest with the columns of `inspection.inspect` and those of `_copies`.
        excluded: the images that belong here but could not be prepared; None where that can't be said.
    """
    per_patient = table["patient_id"].value_counts()
    patients = table.groupby("patient_id")["abnormal"].max()
    sizes = (table["width"].astype("str") + " x " + table["height"].astype("str")).where(table["width"].notna())
    numbers = {
        "images": len(table),
        "patients": len(per_patient),
        "patients_with_several_images": int((per_patient > 1).sum()),
        "images_of_those": int(per_patient[per_patient > 1].sum()),
        "most_images_of_a_patient": int(per_patient.max()) if len(per_patient) else 0,
        "images_per_patient": _counts(per_patient.map(_few)),
        "abnormal": _label(table["abnormal"]),
        "patients_abnormal": int((patients == 1).sum()),
        "patients_normal": int((patients == 0).sum()),
        "findings": {name: _label(table[name]) for name in FINDINGS},
        "patients_by_finding": {name: int(table.loc[table[name] == 1, "patient_id"].nunique()) for name in FINDINGS},
        "view": _counts(table["view"]),
        "sex": _counts(table["sex"]),
        "age": _quantiles(table["age"]),
        "ages": _decades(table["age"]),
        "size": _counts(sizes),
        "width": _quantiles(table["width"]),
        "height": _quantiles(table["height"]),
        "format": _counts(table["format"]),
        "mode": _counts(table["mode"]),
        "bits": _counts(table["bits"].astype("str").where(table["bits"].notna())),
        "inverted": int(table["inverted"].fillna(False).sum()),
        "not_judged_for_inversion": int(table["inverted"].isna().sum()),
        "wide_border": int(table["wide_border"].sum()),
        "almost_blank": int(table["almost_blank"].sum()),
        "copies_in_other_patients": int(table["copy_elsewhere"].sum()),
        "copies_in_same_patient": int(table["copy_in_patient"].sum()),
    }
    if excluded is not None:
        numbers["left_out"] = len(excluded)
        numbers["blank"] = int(excluded["reason"].str.startswith("blank").sum())
    return numbers


def _copies(manifest: pd.DataFrame, links: pd.DataFrame) -> dict[str, np.ndarray]:
    """For each image: is it a copy of another patient's, of one of its own patient's?"""
    patients, rows = manifest["patient_id"].to_numpy(), links[["row_a", "row_b"]].to_numpy()
    within = patients[rows[:, 0]] == patients[rows[:, 1]]
    return {
        "copy_elsewhere": np.isin(np.arange(len(manifest)), rows[~within]),
        "copy_in_patient": np.isin(np.arange(len(manifest)), rows[within]),
    }


def _label(values: pd.Series) -> dict:
    """Present, absent, unknown, and the share of the known that are present (None where nothing is known)."""
    present, absent = int((values == 1).sum()), int((values == 0).sum())
    prevalence = present / (present + absent) if present + absent else None
    return {"present": present, "absent": absent, UNKNOWN: int(values.isna().sum()), "prevalence": prevalence}


def _counts(values: pd.Series) -> dict[str, int]:
    """How often each value occurs, the most frequent first, the unknown last."""
    counts = {str(value): int(count) for value, count in values.value_counts().items()}
    unknown = int(values.isna().sum())
    return counts | ({UNKNOWN: unknown} if unknown else {})


def _quantiles(values: pd.Series) -> dict:
    shares = {"least": 0, "lower_quartile": 0.25, "median": 0.5, "upper_quartile": 0.75, "most": 1}
    known = values.dropna().astype("float64")
    quantiles = {name: float(known.quantile(share)) if len(known) else None for name, share in shares.items()}
    return quantiles | {UNKNOWN: int(values.isna().sum())}


def _decades(ages: pd.Series) -> dict[str, int]:
    """How many images are of patients in each ten years of age; those of unknown age are in none."""
    names = [*[f"{decade} to {decade + 9}" for decade in range(0, 90, 10)], "90 or older"]
    bands = pd.cut(ages.astype("float64"), [*range(0, 100, 10), np.inf], right=False, labels=names)
    return {name: int((bands == name).sum()) for name in names}


def _few(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images" if count <= 3 else "4 to 9" if count <= 9 else "10 or more"
