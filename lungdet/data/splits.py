"""Who is in train, validation and test: patient-level splits under a name, a seed and hashes.

No patient stands in two parts. The hashes identify the split wherever it is mentioned: two models may be paired on
their test images only if their test parts' hashes are equal.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

PARTS: tuple[str, ...] = ("train", "val", "test")


class SplitError(ValueError):
    """A split that must not be trained on: a patient on two sides, a class that a part lacks, unknown names."""


@dataclass(frozen=True)
class Split:
    """Which image is in which part.

    Attributes:
        name: the protocol (`random`, `official`).
        seed: what the protocol drew with; None if it drew nothing.
        table: columns `image_id` and `split` ("train", "val" or "test"), sorted by `image_id`.
    """

    name: str
    seed: int | None
    table: pd.DataFrame

    def images(self, part: str) -> pd.Index:
        """The image ids of one part, sorted."""
        return pd.Index(self.table.loc[self.table["split"] == part, "image_id"])

    def part_hash(self, part: str) -> str:
        """A hash of which images the part holds, and of nothing else."""
        return _hash(self.images(part))

    @property
    def hash(self) -> str:
        """A hash of the whole table."""
        return _hash(self.table["image_id"] + "\t" + self.table["split"])

    def describe(self, manifest: pd.DataFrame) -> dict:
        """Name, seed, hashes and each part's images, patients and abnormal images, as JSON-ready values."""
        parts = {}
        for part in PARTS:
            rows = manifest[manifest["image_id"].isin(self.images(part))]
            parts[part] = {
                "hash": self.part_hash(part),
                "images": len(rows),
                "patients": int(rows["patient_id"].nunique()),
                "abnormal": int(rows["abnormal"].sum()),
                "datasets": {
                    name: {"images": len(some), "patients": int(some["patient_id"].nunique())}
                    for name, some in rows.groupby("dataset")
                },
            }
        return {"name": self.name, "seed": self.seed, "hash": self.hash, "parts": parts}

    def save(self, path: Path) -> None:
        """Write the table as csv."""
        self.table.to_csv(path, index=False, lineterminator="\n")


def random(manifest: pd.DataFrame, fractions: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0) -> Split:
    """Patients drawn into train, validation and test, stratified by dataset and label (the study's 70:15:15).

    A patient is abnormal if any of the images is. A stratum of fewer than 3 patients cannot be cut in three and joins
    the largest stratum of its label.

    Raises:
        SplitError: the fractions are not three positive numbers that add up to 1.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise SplitError(f"data.fractions={list(fractions)}: three positive numbers that add up to 1 are needed")
    part_of = _draw(manifest, dict(zip(PARTS, fractions, strict=True)), seed)
    return _split("random", seed, manifest["image_id"], manifest["patient_id"].map(part_of))


def official(
    manifest: pd.DataFrame, lists: pd.Series, fractions: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0
) -> Split:
    """A dataset's own test list; validation is cut from the rest by patient, as large as `fractions` says.

    Args:
        manifest: the images at hand.
        lists: "train_val" or "test" by image id; it may name more images than the manifest holds.
        fractions: only the ratio of the first two counts here: validation against train.
        seed: for the cut between train and validation.

    Raises:
        SplitError: images that no list names, or a patient whom the lists put on both sides.
    """
    listed = manifest["image_id"].map(lists)
    if listed.isna().any():
        absent = manifest.loc[listed.isna(), "image_id"]
        raise SplitError(
            f"{len(absent)} images are on no official list, the first {absent.iloc[0]}; use data.split=random"
        )
    rest = manifest[listed == "train_val"]
    train, val = fractions[0], fractions[1]
    part_of = _draw(rest, {"train": train / (train + val), "val": val / (train + val)}, seed)
    parts = listed.where(listed == "test", manifest["patient_id"].map(part_of))
    return _split("official", seed, manifest["image_id"], parts)


def check(split: Split, manifest: pd.DataFrame) -> None:
    """Refuse a split that training must not start on.

    Raises:
        SplitError: a patient in two parts (up to ten are named), an image in none or twice, or a part that lacks one
            of the classes normal and abnormal.
    """
    if split.table["image_id"].duplicated().any():
        name = split.table.loc[split.table["image_id"].duplicated(), "image_id"].iloc[0]
        raise SplitError(f"split {split.name}: image {name} stands in it more than once")
    table = manifest.merge(split.table, on="image_id", how="left")
    if table["split"].isna().any():
        name = table.loc[table["split"].isna(), "image_id"].iloc[0]
        raise SplitError(f"split {split.name}: {int(table['split'].isna().sum())} images are in no part, first {name}")
    sides = table.groupby("patient_id")["split"].nunique()
    leaked = sides.index[sides > 1]
    if len(leaked):
        names = ", ".join(leaked[:10]) + (" .." if len(leaked) > 10 else "")
        raise SplitError(
            f"split {split.name}: {len(leaked)} patients have images in more than one part: {names}. "
            "A model would be tested on patients it was trained on; assign whole patients"
        )
    for part in PARTS:
        labels = table.loc[table["split"] == part, "abnormal"]
        for value, name in ((0, "normal"), (1, "abnormal")):
            if not (labels == value).any():
                counts = f"{len(labels)} images, {int((labels == 1).sum())} abnormal, {int((labels == 0).sum())} normal"
                raise SplitError(
                    f"split {split.name}: the {part} part holds no {name} image ({counts}); "
                    "take more images (data.limit), other data.fractions or another data.split_seed"
                )


def _draw(manifest: pd.DataFrame, shares: Mapping[str, float], seed: int) -> pd.Series:
    """A part for each patient id, the shares kept within each stratum."""
    patients = manifest.groupby("patient_id", sort=True).agg(dataset=("dataset", "first"), label=("abnormal", "max"))
    patients["label"] = patients["label"].fillna(-1)  # nobody knows: a stratum of its own
    patients["stratum"] = _strata(patients)
    generator = np.random.default_rng(seed)
    part_of = pd.Series("", index=patients.index, dtype="str")
    for _, members in patients.groupby("stratum", sort=True):
        shuffled = generator.permutation(members.index.to_numpy())
        counts = _apportion(len(shuffled), list(shares.values()))
        part_of[shuffled] = np.repeat(list(shares), counts)
    return part_of


def _strata(patients: pd.DataFrame) -> pd.Series:
    """`dataset/label`, a stratum of fewer than 3 patients having joined the largest one of its label."""
    stratum = patients["dataset"] + "/" + patients["label"].astype("str")
    size = stratum.groupby(stratum).transform("size")
    largest = stratum[size.groupby(patients["label"]).idxmax()].set_axis(sorted(patients["label"].unique()))
    return stratum.where(size >= len(PARTS), patients["label"].map(largest))


def _apportion(total: int, shares: Sequence[float]) -> np.ndarray:
    """Whole numbers that add up to `total` in proportion to `shares`, none of them 0 where `total` allows it."""
    exact = np.asarray(shares) * total
    counts = np.floor(exact + 1e-9).astype(int)
    # Largest remainders; of equal ones the later part first, since held-out patients are the scarcer ones.
    order = np.lexsort((-np.arange(len(shares)), -(exact - counts).round(9)))
    counts[order[: total - counts.sum()]] += 1
    while total >= len(shares) and counts.min() == 0:
        counts[counts.argmax()] -= 1
        counts[counts.argmin()] += 1
    return counts


def _split(name: str, seed: int | None, image_ids: pd.Series, parts: pd.Series) -> Split:
    table = pd.DataFrame({"image_id": image_ids.astype("str"), "split": parts.astype("str")})
    return Split(name, seed, table.sort_values("image_id", ignore_index=True))


def _hash(lines: pd.Index | pd.Series) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
