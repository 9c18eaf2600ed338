"""Making a prepared store: decode and resize on every core, say how far it is, put it in place when it is whole."""

import errno
import json
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import PIL

from lungdet.data.store.depth import Outliers, outlying
from lungdet.data.store.images import Settings, opencv_on_one_thread, read_square
from lungdet.data.store.partial import Partial, clear
from lungdet.errors import InputError, UnreadableImageError
from lungdet.machine import hardware
from lungdet.machine.progress import progress

log = logging.getLogger(__name__)

FORMAT = 2
"""Raised whenever the same files and settings would give other pixels or another layout."""


class StoreError(InputError):
    """A store that cannot be made or opened; the message says what to do."""


def build(target: Path, files: pd.DataFrame, manifest: pd.DataFrame, settings: Settings, fingerprint: str) -> None:
    """Make the store `target` out of `files`, going on where an earlier call was stopped.

    Args:
        target: the store's folder, which does not exist; it grows under `<target>.partial`.
        files: `image_id`, `dataset`, `path`, `file` (absolute), `bytes` (-1 where missing), in the store's order.
        manifest: kept beside the pixels.
        settings: size, resize, bit depth.
        fingerprint: kept with the store.

    Raises:
        StoreError: no image usable, or too little disk.
    """
    began = time.perf_counter()
    growing = target.with_name(f"{target.name}.partial")
    _announce(growing, target, len(files), settings)
    with _disk(growing):
        with Partial(growing, len(files), settings.size) as partial:
            _fill(partial, files, settings)
            left_out = [
                (files.at[row, "image_id"], files.at[row, "path"], reason) for row, reason in partial.reasons.items()
            ]
            order, bits = partial.finish(files["dataset"].to_numpy(), settings)
            outliers = _outliers(partial, files, bits, settings)
        excluded = pd.DataFrame(sorted(left_out), columns=["image_id", "path", "reason"])
        if len(order) == 0:
            shutil.rmtree(growing)
            first = "; ".join(f"{row.path}: {row.reason}" for row in excluded.head(3).itertuples())
            raise StoreError(f"none of the {len(files)} images could be used: {first}")
        rows = pd.Index(manifest["image_id"]).get_indexer(files["image_id"].iloc[order])
        manifest.iloc[rows].to_parquet(growing / "manifest.parquet", index=False)
        excluded.to_csv(growing / "excluded.csv", index=False)
        seconds = time.perf_counter() - began
        facts = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "settings": asdict(settings),
            "bits": bits,
            "outliers": {dataset: asdict(images) for dataset, images in outliers.items()},
            "images": len(order),
            "excluded": len(excluded),
            "by_dataset": files["dataset"].iloc[order].value_counts().sort_index().to_dict(),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 2),
            "versions": {"pillow": PIL.__version__, "opencv": cv2.__version__, "numpy": np.__version__},
        }
        (growing / "store.json").write_text(json.dumps(facts, indent=1) + "\n")
        growing.rename(target)
        clear(target, settings.size)
    log.info("prepared %s images in %s: %s", f"{len(order):,}", _duration(seconds), target)


@contextmanager
def _disk(growing: Path) -> Iterator[None]:
    """What the disk of a growing store refuses is the user's to mend."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"no space left for {growing}; make some, then run again to go on") from error
        raise StoreError(f"{growing} cannot be written ({error}); let data.store name a folder that can") from error


def _announce(growing: Path, target: Path, count: int, settings: Settings) -> None:
    """Say what it will take on the disk, and refuse a disk that has less."""
    size = count * settings.size**2
    written = (growing / "images.npy").stat().st_blocks * 512 if (growing / "images.npy").exists() else 0
    free = shutil.disk_usage(target.parent).free
    if size - written > free:
        raise StoreError(
            f"{target} needs {_size(size - written)} more, {target.parent} has {_size(free)} free; "
            "make space, or let data.store name a folder on a larger disk"
        )
    log.info(
        "preparing %s images, %d x %d (%s), in %s with %d threads: %s on disk",
        f"{count:,}", settings.size, settings.size, settings.resize, target, hardware.cores(), _size(size),
    )  # fmt: skip


def _fill(partial: Partial, files: pd.DataFrame, settings: Settings) -> None:
    """Every row that is not done yet; images of all parts of the manifest first, for an estimate that holds."""
    todo = np.flatnonzero(~partial.finished)
    if len(todo) < len(files):
        log.info("going on: %s of %s are done", f"{len(files) - len(todo):,}", f"{len(files):,}")
    sample = todo[:: max(len(todo) // 32, 10)]
    todo = np.concatenate([sample, np.setdiff1d(todo, sample)])
    paths, sizes = files["file"].tolist(), files["bytes"].to_numpy()
    settings_of = files["dataset"].map({name: settings.of(name) for name in files["dataset"].unique()}).tolist()
    began, finished, running, workers = time.perf_counter(), 0, deque(), hardware.cores()

    def collect() -> None:
        nonlocal finished
        row, result = running.popleft()
        pixels, largest, reason = result.result()
        if reason is None:
            partial.add(row, pixels, largest)
        else:
            partial.leave_out(int(row), reason)
        advance()
        finished += 1
        if finished == len(sample):
            rate = finished / (time.perf_counter() - began)
            log.info("about %s to go, at %.0f images/s", _duration((len(todo) - finished) / rate), rate)

    with progress("preparing images", len(files), len(files) - len(todo)) as advance, opencv_on_one_thread():
        pool = ThreadPoolExecutor(workers)  # decoding and resizing hold no interpreter lock
        try:
            for row in todo:
                running.append((row, pool.submit(_read, paths[row], sizes[row], settings_of[row])))
                if len(running) >= 16 * workers:  # enough to keep the threads busy while rows are flushed to the disk
                    collect()
            while running:
                collect()
        finally:
            pool.shutdown(cancel_futures=True)


def _outliers(partial: Partial, files: pd.DataFrame, bits: dict[str, int], settings: Settings) -> dict[str, Outliers]:
    """By dataset, the 16-bit images that alone decided its depth."""
    outliers = {}
    for dataset in bits:
        deep = partial.deep & (files["dataset"] == dataset).to_numpy()
        rows, largest = np.flatnonzero(deep), partial.largest[deep]
        far = outlying(largest)
        if settings.of(dataset).bits is None and far.any():
            images = dict(zip(files["image_id"].iloc[rows[far]], largest[far].tolist(), strict=True))
            outliers[dataset] = Outliers(images, len(rows), int(largest[~far].max()), bits[dataset])
    return outliers


def _read(path: str, size: int, settings: Settings) -> tuple[np.ndarray | None, int, str | None]:
    try:
        pixels, largest = read_square(Path(path), settings)
    except UnreadableImageError as error:
        if size >= 0 and not os.path.exists(path):
            raise StoreError(f"{path} was there a moment ago; is its disk still mounted? Run again to go on") from error
        return None, -1, str(error)
    except OSError as error:
        advice = "let this user read it (chmod), or move it away; " if isinstance(error, PermissionError) else ""
        raise StoreError(f"{path}: {error.strerror}; {advice}what is finished is kept, run again to go on") from error
    return pixels, largest, None


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
