"""The prepared store: every image of a manifest decoded once to a uint8 square, in one memory-mapped file."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from lungdet.data.store.building import FORMAT, StoreError, build
from lungdet.data.store.depth import Outliers
from lungdet.data.store.images import Settings

log = logging.getLogger(__name__)

_READ_INTO, _READ = 64, 1 << 20
"""Of how many files the fingerprint knows what stands in them, and how much of each: a second on a slow disk."""

_NAME = 40
"""Signs of a store's name that are the datasets': in no script more than a file system's 255 bytes."""


@dataclass(frozen=True)
class Store:
    """Prepared images and the manifest they belong to.

    Attributes:
        images: (N, H, W) uint8, a read-only memory map of `folder`/images.npy.
        manifest: N rows, row i describing `images[i]`: the rows of the manifest that was asked for, so that a newer
            table's labels are served with the pixels that are there already.
        excluded: `image_id`, `path`, `reason` of each image that could not be used.
        settings: what they were prepared with.
        bits: the depth of each dataset's 16-bit files, by dataset; datasets of 8-bit files are not in it.
        outliers: by dataset, the 16-bit images that alone decided its depth.
        fingerprint: SHA-256 of the source files' names, sizes and times, what stands in some of them (all, of up to
            64), the settings and the store's format.
        folder: where it lies.
    """

    images: np.ndarray
    manifest: pd.DataFrame
    excluded: pd.DataFrame
    settings: Settings
    bits: dict[str, int]
    outliers: dict[str, Outliers]
    fingerprint: str
    folder: Path

    def depth_doubts(self) -> list[str]:
        """What is to be said of `outliers`."""
        return [images.sentence(dataset, len(self.bits) == 1) for dataset, images in self.outliers.items()]


def prepare(manifest: pd.DataFrame, roots: Mapping[str, Path], settings: Settings, folder: Path) -> Store:
    """The store of these images: opened if it is there, else made, or finished where an earlier run was stopped.

    The pixels depend on the files and the settings alone; another order of the rows or other labels find the same
    store. Several processes may ask at once: one works, the others wait.

    Args:
        manifest: the images, see `lungdet.data.manifest`.
        roots: each dataset's folder, which the manifest's `path` starts from.
        settings: size, resize, bit depth.
        folder: where stores are kept; each is a folder of its own in it.

    Raises:
        StoreError: no image usable, too little disk, or a damaged store.
    """
    datasets = sorted(manifest["dataset"].unique())
    if absent := sorted(set(settings.bits) - set(datasets)) if isinstance(settings.bits, dict) else []:
        log.warning("data.bits names %s, of which there is no image", ", ".join(absent))
    files = _files(manifest, roots)
    fingerprint = _fingerprint(files, settings)
    target = Path(folder) / f"{_readable(datasets)}-{settings.size}-{settings.resize}-{fingerprint[:12]}"
    built = not target.exists() and _make(target, files, manifest, settings, fingerprint)
    store = _open(target, manifest, settings, fingerprint)
    if not built:
        log.info("prepared store %s holds all %s images already", target, f"{len(store.images):,}")
    if len(store.excluded):
        first = "; ".join(f"{row.path}: {row.reason}" for row in store.excluded.head(3).itertuples())
        log.warning(
            "%d of %s images cannot be used and are left out; %s lists them, first %s",
            len(store.excluded), f"{len(manifest):,}", target / "excluded.csv", first,
        )  # fmt: skip
    for sentence in store.depth_doubts():
        log.warning(sentence)
    return store


def fingerprint(manifest: pd.DataFrame, roots: Mapping[str, Path], settings: Settings) -> str:
    """The fingerprint that the store of these images has, or would have; no image is decoded."""
    return _fingerprint(_files(manifest, roots), settings)


def reopen(folder: str | Path, fingerprint: str) -> Store:
    """The store that a finished run read, with the manifest that it was made of; its source files need not be there.

    Args:
        folder: as the run recorded it.
        fingerprint: likewise.

    Raises:
        StoreError: it is gone, damaged or another one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StoreError(f"{folder} is no longer there")
    try:
        settings = Settings(**json.loads((folder / "store.json").read_text())["settings"])
        manifest = pd.read_parquet(folder / "manifest.parquet")
        excluded = pd.read_csv(folder / "excluded.csv", dtype=str, keep_default_na=False)[["image_id"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{folder} is damaged ({error})") from error
    return _open(folder, pd.concat([manifest, excluded]), settings, fingerprint)


def _files(manifest: pd.DataFrame, roots: Mapping[str, Path]) -> pd.DataFrame:
    """The source files in the order of their image ids, each with its size and time; -1 where there is none."""
    files = manifest[["image_id", "dataset", "path"]].sort_values("image_id", ignore_index=True)
    if absent := sorted({*files["dataset"]} - roots.keys()):
        raise StoreError(f"the reader's `roots` names no folder of {', '.join(absent)}, whose images its `read` gives")
    roots = {dataset: str(root) for dataset, root in roots.items()}
    # Plain lists and os: this is most of what finding a store again takes. Listing the folders instead takes longer.
    paths = zip(files["dataset"].tolist(), files["path"].tolist(), strict=True)
    names = [os.path.join(roots[dataset], path) for dataset, path in paths]
    sizes, times = np.full((2, len(names)), -1, np.int64)
    for row, name in enumerate(names):
        try:
            status = os.stat(name)
        except OSError:
            continue
        sizes[row], times[row] = status.st_size, status.st_mtime_ns
    return files.assign(file=names, bytes=sizes, time=times)


def _fingerprint(files: pd.DataFrame, settings: Settings) -> str:
    """Versions of Pillow and OpenCV are recorded in the store but not in here: an upgrade decodes nothing anew."""
    digest = hashlib.sha256(json.dumps({"format": FORMAT, **asdict(settings)}, sort_keys=True).encode())
    columns = (files[column].tolist() for column in ("image_id", "path", "bytes", "time"))
    digest.update("\n".join(f"{i}\t{p}\t{b}\t{t}" for i, p, b, t in zip(*columns, strict=True)).encode())
    # Two folders may hold other images under the same names, sizes and times (exported anew, not compressed).
    for name in files["file"].iloc[:: max(1, -(-len(files) // _READ_INTO))]:
        try:
            with open(name, "rb") as file:
                digest.update(hashlib.sha256(file.read(_READ)).digest())
        except OSError:
            continue
    return digest.hexdigest()


def _readable(datasets: list[str]) -> str:
    """What a store's folder is called by: the datasets, as far as file systems take their names; no path."""
    return re.sub(r"[^\w.+-]", "_", "+".join(datasets))[:_NAME]


def _make(target: Path, files: pd.DataFrame, manifest: pd.DataFrame, settings: Settings, fingerprint: str) -> bool:
    """True if this process made the store, False if it waited while another did."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.parent / f".{target.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("another process is preparing %s; waiting for it", target)
            lock.acquire()
    except OSError as error:
        raise StoreError(
            f"{target.parent} cannot be written ({error}); let data.store name a folder that can"
        ) from error
    try:
        if target.exists():
            return False
        build(target, files, manifest, settings, fingerprint)
        return True
    finally:
        lock.release()


def _open(folder: Path, manifest: pd.DataFrame, settings: Settings, fingerprint: str) -> Store:
    try:
        facts = json.loads((folder / "store.json").read_text())
        images = np.lib.format.open_memmap(folder / "images.npy", mode="r")
        stored = pd.read_parquet(folder / "manifest.parquet", columns=["image_id"])["image_id"]
        excluded = pd.read_csv(folder / "excluded.csv", dtype=str, keep_default_na=False)
        rows = pd.Index(manifest["image_id"]).get_indexer(stored)
        if facts["fingerprint"] != fingerprint:
            raise ValueError(f"store.json has the fingerprint {facts['fingerprint']}, these files have {fingerprint}")
        expected = (len(stored), settings.size, settings.size)
        if images.shape != expected or images.dtype != np.uint8:
            raise ValueError(f"images.npy holds {images.dtype} {images.shape}, not uint8 {expected}")
        if list(excluded) != ["image_id", "path", "reason"]:
            raise ValueError(f"excluded.csv has the columns {list(excluded)}, not image_id, path, reason")
        if (rows < 0).any() or len(stored) + len(excluded) != len(manifest):
            raise ValueError(
                f"{len(stored)} prepared and {len(excluded)} excluded images are not the {len(manifest)} asked for"
            )
        bits = dict(facts["bits"])
        outliers = {dataset: Outliers(**images) for dataset, images in facts["outliers"].items()}
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{folder} is damaged ({error}); delete that folder and prepare again") from error
    return Store(
        images, manifest.iloc[rows].reset_index(drop=True), excluded, settings, bits, outliers, fingerprint, folder
    )
