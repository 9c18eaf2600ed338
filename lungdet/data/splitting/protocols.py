"""How patients are drawn into parts: the protocols that `data.split` names.

`random` (the study's 70:15:15), `official` (the publisher's test list), `folds`, `leave_one_source_out` and `file`.
Everything is drawn by patient, within strata of dataset and label; a patient is abnormal if any of the images is. What
is drawn depends on the images and on which are of one patient, not on what patients are called.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lungdet.data import separator
from lungdet.data.splitting.splits import PARTS, UNUSED, Split, SplitError

log = logging.getLogger(__name__)


def random(manifest: pd.DataFrame, fractions: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0) -> Split:
    """Patients drawn into train, validation and test, stratified by dataset and label (the study's 70:15:15).

    A patient is abnormal if any of the images is. A stratum of fewer than 3 patients cannot be cut in three and joins
    the largest stratum of its label.
    """
    part_of = _draw(manifest, dict(zip(PARTS, fractions, strict=True)), seed)
    return _split("random", seed, manifest["image_id"], manifest["patient_id"].map(part_of))


def official(
    manifest: pd.DataFrame, lists: pd.Series, fractions: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0
) -> Split:
    """A dataset's own test list; validation is cut from the rest by patient, as large as `fractions` says.

    The list is taken as it is: a patient whom it puts on both sides is found by `splits.check`, not here.

    Args:
        manifest: the images at hand.
        lists: "train_val" or "test" by image id; it may name more images than the manifest holds.
        fractions: only the ratio of the first two counts here: validation against train.
        seed: for the cut between train and validation.

    Raises:
        SplitError: images that no list names.
    """
    listed = manifest["image_id"].map(lists)
    if listed.isna().any():
        absent = manifest.loc[listed.isna(), "image_id"]
        raise SplitError(
            f"{len(absent)} images are on no official list, the first {absent.iloc[0]}; use data.split=random"
        )
    return _with_test("official", manifest, listed == "test", fractions, seed)


def folds(
    manifest: pd.DataFrame, fold: int, of: int = 5, fractions: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0
) -> Split:
    """One of several folds as the test part: over all folds, each patient is tested once.

    Args:
        manifest: the images.
        fold: which fold is tested, from 0.
        of: how many there are.
        fractions: the ratio of the first two is that of train against validation in the rest.
        seed: draws the folds, and the cut between train and validation.
    """
    fold_of = _draw(manifest, {str(i): 1 / of for i in range(of)}, seed)
    tested = manifest["patient_id"].map(fold_of) == str(fold)
    return _with_test("folds", manifest, tested, fractions, seed, fold=fold, of=of)


def leave_one_source_out(
    manifest: pd.DataFrame, held_out: str | None, fractions: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0
) -> Split:
    """A whole dataset as the test part, the others for training and validation.

    Raises:
        SplitError: no such dataset among the images, or no other one.
    """
    sources = sorted(manifest["dataset"].unique())
    if held_out not in sources:
        raise SplitError(f"data.held_out={held_out}: not among the sources at hand, {', '.join(sources)}")
    if len(sources) < 2:
        raise SplitError(f"data.held_out={held_out}: it is the only source at hand; there is nothing to train on")
    tested = manifest["dataset"] == held_out
    return _with_test("leave_one_source_out", manifest, tested, fractions, seed, held_out=held_out)


def from_file(manifest: pd.DataFrame, path: Path) -> Split:
    """A user's own split: a csv with the columns `image_id` and `split` (train, val, test).

    Images that it names and that are not at hand are counted and logged.

    Raises:
        SplitError: no such file, no table, a column missing, a part that does not exist, or none of its images at hand.
    """
    if not path.is_file():
        raise SplitError(f"data.split_file={path}: no such file")
    try:
        table = separator.read(path)
    except ValueError as error:
        raise SplitError(f"data.split_file={path}: {error}") from error
    return from_table(manifest, table, path)


def from_table(manifest: pd.DataFrame, table: pd.DataFrame, path: Path) -> Split:
    """A split that a table states, which was read from this file; see `from_file`."""
    if missing := {"image_id", "split"} - set(table.columns):
        columns = ", ".join(table.columns)
        raise SplitError(f"{path}: column(s) {', '.join(sorted(missing))} missing; found are {columns}")
    wrong = table.loc[~table["split"].isin([*PARTS, UNUSED]), "split"]
    if len(wrong):
        raise SplitError(
            f"{path}, line {wrong.index[0] + 2}, column split: {wrong.iloc[0]!r}; one of {', '.join(PARTS)}, {UNUSED} "
            "is needed"
        )
    unknown = table.loc[~table["image_id"].isin(manifest["image_id"]), "image_id"]
    if len(unknown) == len(table):
        raise SplitError(
            f"{path}, column image_id: none of its {len(table)} images is at hand, of which the first is "
            f"{manifest['image_id'].iloc[0]}"
        )
    if len(unknown):
        log.warning("%s: %d of %d images are not at hand: %s", path, len(unknown), len(table), ", ".join(unknown[:5]))
    table = table.loc[~table["image_id"].isin(unknown), ["image_id", "split"]]
    return Split("file", None, table.sort_values("image_id", ignore_index=True), file=path.name)


def spread(manifest: pd.DataFrame, seed: int) -> pd.Series:
    """A place in (0, 1) for each patient, drawn so that the patients below any place hold all strata in proportion."""
    patients = _patients(manifest).sample(frac=1, random_state=seed)
    strata = patients.groupby("stratum")["stratum"]
    return ((strata.cumcount() + 0.5) / strata.transform("size")).sort_values(kind="stable")


def _with_test(
    protocol: str, manifest: pd.DataFrame, test: pd.Series, fractions: Sequence[float], seed: int, **facts: object
) -> Split:
    """Test images as given; the other patients drawn into train and validation in the ratio of their fractions."""
    train, val = fractions[0], fractions[1]
    part_of = _draw(manifest[~test], {"train": train / (train + val), "val": val / (train + val)}, seed)
    parts = manifest["patient_id"].map(part_of).where(~test, "test")
    return _split(protocol, seed, manifest["image_id"], parts, **facts)


def _draw(manifest: pd.DataFrame, shares: Mapping[str, float], seed: int) -> pd.Series:
    """A part for each patient id, the shares kept within each stratum."""
    patients = _patients(manifest)
    generator = np.random.default_rng(seed)
    part_of = pd.Series("", index=patients.index, dtype="str")
    for _, members in patients.groupby("stratum", sort=True):
        shuffled = generator.permutation(members.index.to_numpy())
        counts = _apportion(len(shuffled), list(shares.values()))
        part_of[shuffled] = np.repeat(list(shares), counts)
    return part_of


def _patients(manifest: pd.DataFrame) -> pd.DataFrame:
    """One row a patient, in the order of their first images: `dataset`, `label`, `stratum`."""
    patients = (
        manifest.sort_values("image_id")
        .groupby("patient_id", sort=False)
        .agg(dataset=("dataset", "first"), label=("abnormal", "max"))
    )
    patients["label"] = patients["label"].fillna(-1)  # nobody knows: a stratum of its own
    return patients.assign(stratum=_strata(patients))


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


def _split(protocol: str, seed: int, image_ids: pd.Series, parts: pd.Series, **facts: object) -> Split:
    table = pd.DataFrame({"image_id": image_ids.astype("str"), "split": parts.astype("str")})
    return Split(protocol, seed, table.sort_values("image_id", ignore_index=True), **facts)
