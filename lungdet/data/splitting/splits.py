"""Who is in train, validation and test: a split carries its facts and hashes, and is checked before it is used.

No patient stands in two parts. The hashes identify the split wherever it is mentioned: two models may be paired on
their test images only if their test parts' hashes are equal. How splits are drawn: `lungdet.data.splitting.protocols`.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from lungdet.data.manifest import short_hash
from lungdet.errors import InputError
from lungdet.machine.writing import write_text

PARTS: tuple[str, ...] = ("train", "val", "test")
UNUSED = "unused"
"""Images that a run neither trains nor is tested on, such as those that a smaller `train_fraction` leaves out."""


class SplitError(InputError):
    """A split that must not be trained on: a patient on two sides, a class that a part lacks, unknown names."""


@dataclass(frozen=True)
class Split:
    """Which image is in which part, and what that was drawn by.

    Attributes:
        protocol: what `data.split` named.
        seed: what the protocol drew with; None if it drew nothing.
        table: columns `image_id` and `split` ("train", "val", "test" or "unused"), sorted by `image_id`.
        fold: the fold that is tested, of `of`; None where the protocol has no folds.
        held_out: the dataset that is tested; None where the protocol holds none out.
        file: the name of the file that it was read from; None where it was drawn.
        train_fraction: share of the training patients that is left.
        train_on: the datasets that training and validation are restricted to, in order; None for all.
        train_prevalence: share of abnormal images in training; None as they come.
    """

    protocol: str
    seed: int | None
    table: pd.DataFrame
    fold: int | None = None
    of: int | None = None
    held_out: str | None = None
    file: str | None = None
    train_fraction: float = 1.0
    train_on: tuple[str, ...] | None = None
    train_prevalence: float | None = None

    @property
    def name(self) -> str:
        """The facts in words, for people: `fold 0 of 5, 0.5 of train, trained on clinic, 0.1 abnormal in train`."""
        drawn = {
            "folds": f"fold {self.fold} of {self.of}",
            "leave_one_source_out": f"without {self.held_out}",
            "file": f"file {self.file}",
        }
        words = [drawn.get(self.protocol, self.protocol)]
        words += [f"{self.train_fraction:g} of train"] if self.train_fraction != 1 else []
        words += [f"trained on {'+'.join(self.train_on)}"] if self.train_on is not None else []
        words += [f"{self.train_prevalence:g} abnormal in train"] if self.train_prevalence is not None else []
        return ", ".join(words)

    @property
    def facts(self) -> dict:
        """The name and what it is made of, as a run records them."""
        facts = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "table"}
        return {"name": self.name, **facts}

    def images(self, part: str) -> pd.Index:
        """The image ids of one part, sorted."""
        return pd.Index(self.table.loc[self.table["split"] == part, "image_id"])

    def part_hash(self, part: str) -> str:
        """A hash of which images the part holds, and of nothing else."""
        return hash_of(self.images(part))

    @property
    def hash(self) -> str:
        """A hash of the whole table."""
        return hash_of(self.table["image_id"] + "\t" + self.table["split"])

    def describe(self, manifest: pd.DataFrame) -> dict:
        """Facts, hashes and each part's images, patients, labelled and abnormal ones, as JSON-ready values."""
        parts = {}
        for part in PARTS:
            rows = manifest[manifest["image_id"].isin(self.images(part))]
            parts[part] = {
                "hash": self.part_hash(part),
                "images": len(rows),
                "patients": int(rows["patient_id"].nunique()),
                "labelled": int(rows["abnormal"].count()),
                "abnormal": int(rows["abnormal"].sum()),
                "datasets": {
                    name: {"images": len(images), "patients": int(images["patient_id"].nunique())}
                    for name, images in rows.groupby("dataset")
                },
            }
        return {**self.facts, "hash": self.hash, "parts": parts}

    def save(self, path: Path, manifest: pd.DataFrame) -> None:
        """Write `image_id, patient_id, dataset, split` as csv; the manifest tells patients and datasets."""
        table = self.table.merge(manifest[["image_id", "patient_id", "dataset"]], on="image_id", how="left")
        write_text(path, table[["image_id", "patient_id", "dataset", "split"]].to_csv(index=False, lineterminator="\n"))


def check(split: Split, manifest: pd.DataFrame) -> None:
    """Refuse a split that training must not start on.

    Raises:
        SplitError: a patient in two parts (up to ten are named), an image in none or twice, or a part that lacks one
            of the classes normal and abnormal.
    """
    if split.table["image_id"].duplicated().any():
        name = split.table.loc[split.table["image_id"].duplicated(), "image_id"].iloc[0]
        raise SplitError(f"split {split.name}: image {name} stands in it more than once; delete all lines but one")
    table = manifest.merge(split.table, on="image_id", how="left")
    if table["split"].isna().any():
        name = table.loc[table["split"].isna(), "image_id"].iloc[0]
        raise SplitError(
            f"split {split.name}: {int(table['split'].isna().sum())} images are in no part, first {name}; give each "
            f"one of {', '.join(PARTS)}, {UNUSED}"
        )
    sides = table[table["split"].ne(UNUSED)].groupby("patient_id")["split"].nunique()
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
                advice = "take more images (data.limit), other data.fractions, fewer folds or another data.split_seed"
                if not (manifest["abnormal"] == value).any():
                    advice = "none of all images is, and from one class nothing is learnt"
                raise SplitError(f"split {split.name}: the {part} part holds no {name} image ({counts}); {advice}")


def hash_of(lines: pd.Index | pd.Series) -> str:
    """What identifies a part by its image ids, sorted."""
    return short_hash("\n".join(lines))
