"""The leak guard: no image is trained on under one name and tested on under another.

`splits.check` keeps patients whole; this finds the same image under two patients, in one source or in two. The pixels
are searched once for each prepared store (`lungdet.data.store.copies` says how, and how sure it is) and the result is
kept there; it depends neither on labels nor on the split.
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from scipy.cluster.hierarchy import DisjointSet

from lungdet.data.splitting.splits import PARTS, Split, SplitError
from lungdet.data.store.alignment import at_most
from lungdet.data.store.copies import VERSION, search
from lungdet.data.store.store import Store
from lungdet.machine.writing import replacing

log = logging.getLogger(__name__)

NAMED = 10
"""Pairs that an error names."""


def store_copies(store: Store) -> pd.DataFrame:
    """The copies between patients in a prepared store; searched once, then kept in the store's folder."""
    return between_patients(links(store), store.manifest)


def refuse_copies(pairs: pd.DataFrame, split: Split, manifest: pd.DataFrame) -> None:
    """Refuse a split in which an image stands in two parts.

    Args:
        pairs: from `between_patients`.
        split: who is in train, validation and test; images that are in none of them do no harm, but link their copies.
        manifest: tells the patients.

    Raises:
        SplitError: names up to ten pairs, and says what to do.
    """
    parts = split.table[split.table["split"].isin(PARTS)].set_index("image_id")["split"].to_dict()
    crossing = _crossing(pairs, parts)
    if not crossing:
        return
    patients = manifest.set_index("image_id")["patient_id"]
    lines = [
        f"{a} ({parts[a]}, patient {patients[a]}) and {b} ({parts[b]}, patient {patients[b]}): {kind}"
        for a, b, kind in crossing[:NAMED]
    ]
    if len(crossing) > NAMED:
        lines.append(f".. and {len(crossing) - NAMED:,} more")
    raise SplitError(
        f"split {split.name}: the same image stands in two parts under two patients, {len(crossing):,} times, so that "
        "a model would be tested on images it was trained on:\n  "
        + "\n  ".join(lines)
        + "\nWhere the two are one patient's, give them the same patient_id (data=table) and they stay together; "
        "else take one of the two out of the folder or the table"
    )


def copied(store: Store, reference: Store, images: Collection[str]) -> dict[str, str]:
    """The images of a store that are copies of some of another store's, each with the name of one it is a copy of.

    Args:
        store: searched.
        reference: the other one, prepared with the same `resize`; it may be the same store, or of another size.
        images: the image ids in `reference` whose copies are sought.
    """
    alone = reference.fingerprint == store.fingerprint
    offset = 0 if alone else len(reference.images)  # rows of `reference` come first in the links
    pairs, groups = links(store) if alone else links(store, reference), DisjointSet(range(offset + len(store.images)))
    for a, b in zip(pairs["row_a"].tolist(), pairs["row_b"].tolist(), strict=True):
        groups.merge(a, b)
    names = reference.manifest["image_id"]
    sought = {groups[row]: names[row] for row in np.flatnonzero(names.isin(images)).tolist()}
    group_of = {name: groups[offset + row] for row, name in enumerate(store.manifest["image_id"])}
    return {name: sought[group] for name, group in group_of.items() if group in sought}


def links(store: Store, reference: Store | None = None) -> pd.DataFrame:
    """The copies in a prepared store whoever the patients are (see `copies.search`), kept once they are found.

    With `reference` the copies in both stores, the rows of that one coming first.
    """
    images = store.images if reference is None else _Stacked(reference.images, store.images)
    name = f"copies-{VERSION}{'' if reference is None else f'-{reference.fingerprint[:12]}'}.parquet"
    pairs = _read(store.folder / name, len(images))
    if pairs is None:
        with _one_at_a_time(store.folder):
            pairs = _read(store.folder / name, len(images))  # another process may have searched while this one waited
            if pairs is None:
                if len(images) > 5000:
                    log.info("looking for images that stand twice among %s, once", f"{len(images):,}")
                pairs = search(images)
                _write(pairs, store.folder / name)
    return pairs


class _Stacked(Sequence):
    """The images of two stores one after the other, the larger ones brought to the smaller side."""

    def __init__(self, first: np.ndarray, second: np.ndarray) -> None:
        self.first, self.second, self.side = first, second, min(first.shape[1], second.shape[1])

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, row: int) -> np.ndarray:
        image = self.first[row] if row < len(self.first) else self.second[row - len(self.first)]
        return at_most(image, self.side)


def between_patients(pairs: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Images of different patients that are copies of each other; two visits of one patient are no alarm.

    Args:
        pairs: from `lungdet.data.store.copies.search`.
        manifest: row i describing image i of those searched.

    Returns:
        `image_id_a`, `image_id_b`, `kind` ("identical": the same pixels, or "near") and `correlation`. Of k copies of
        one image not all pairs are given, but enough to name each and to link them all.
    """
    names, patients = (manifest[column].to_numpy() for column in ("image_id", "patient_id"))
    pairs = pairs[patients[pairs["row_a"]] != patients[pairs["row_b"]]]
    ids = {f"image_id_{side}": pd.Series(names[pairs[f"row_{side}"]], dtype="str") for side in "ab"}
    return pd.DataFrame(ids).assign(kind=pairs["kind"].to_numpy(), correlation=pairs["correlation"].to_numpy())


def _crossing(pairs: pd.DataFrame, part_of: dict[str, str]) -> list[tuple[str, str, str]]:
    """Copies in two parts: the two images and how they are known to be copies."""
    groups, members = DisjointSet({*pairs["image_id_a"], *pairs["image_id_b"]}), {}
    for a, b in zip(pairs["image_id_a"], pairs["image_id_b"], strict=True):
        groups.merge(a, b)
    crossing, named = [], set()
    for a, b, kind, correlation in pairs[["image_id_a", "image_id_b", "kind", "correlation"]].itertuples(index=False):
        for image in (a, b):
            if image in part_of:
                members.setdefault(groups[image], {}).setdefault(part_of[image], image)
        if a in part_of and b in part_of and part_of[a] != part_of[b]:
            crossing.append((a, b, "identical" if kind == "identical" else f"correlation {correlation:.2f}"))
            named.add(groups[a])
    for group, firsts in members.items():
        if len(firsts) > 1 and group not in named:  # the image between them is in no part
            crossing.append((*list(firsts.values())[:2], "copies of an image that is in no part"))
    return crossing


def _read(file: Path, count: int) -> pd.DataFrame | None:
    """The pairs of an earlier search, if its file is there and whole."""
    try:
        pairs = pd.read_parquet(file)[["row_a", "row_b", "kind", "correlation"]]
        rows = pairs[["row_a", "row_b"]].to_numpy("int64")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read (%s); the images are searched again", file, error)
        return None
    return pairs if ((rows >= 0) & (rows < count)).all() else None


def _write(pairs: pd.DataFrame, file: Path) -> None:
    try:
        with replacing(file) as stream:
            pairs.to_parquet(stream, index=False)
    except OSError as error:
        log.info("what was found cannot be kept in %s (%s); it is searched for each time", file.parent, error)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Others wait, unless the disk is read-only: then each searches for itself."""
    with ExitStack() as locks:
        with suppress(OSError):
            locks.enter_context(FileLock(folder.with_name(f".{folder.name}.copies.lock")))
        yield
