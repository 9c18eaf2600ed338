"""A prepared store in the making: rows of pixels, and which of them are finished, so that work can go on."""

import io
import logging
import os
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from lungdet.data.store.depth import depth, greys
from lungdet.data.store.images import Settings
from lungdet.machine.writing import PARTIAL, replacing

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 5.0
"""How much work a kill or a power cut can cost."""


class Partial:
    """The folder that a store grows in; opened again after a stop, it knows what is finished.

    `images.npy` takes 8-bit rows at their place at once. 16-bit rows wait in `deep.raw`, a file with holes, until all
    are there and their dataset's depth is known. Rows are flushed to the disk before `rows.npy` says that they are
    finished. Rows are written as file blocks rather than through a map: on a full disk that is an error, not a crash.
    Rows that cannot be used are few, and tried again after a stop.

    Args:
        folder: made if missing.
        count: rows, one an image.
        size: side of the square images.
    """

    def __init__(self, folder: Path, count: int, size: int) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.size = folder, size
        self.largest = np.full(count, -1, np.int32)  # of the whole file, -1: not finished
        self.deep = np.zeros(count, bool)  # from a 16-bit file
        if (folder / "rows.npy").exists():
            self.largest, self.deep = np.load(folder / "rows.npy")
            self.deep = self.deep.astype(bool)
        self.reasons: dict[int, str] = {}  # why a row is left out
        self._start = len(_header(count, size))
        self._images, self._deep = (_open(folder / name) for name in ("images.npy", "deep.raw"))
        self._saved = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not isinstance(error, OSError):  # a disk that just refused a write is not asked for another
                self.checkpoint()
        finally:
            self._images.close()
            self._deep.close()

    @property
    def finished(self) -> np.ndarray:
        """(count,) bool: prepared, or known to be unusable."""
        finished = self.largest >= 0
        finished[list(self.reasons)] = True
        return finished

    def add(self, row: int, pixels: np.ndarray, largest: int) -> None:
        """One finished image: (size, size) uint8 or uint16, and the largest value in its file."""
        deep = pixels.dtype == np.uint16
        if deep:
            self._deep.seek(row * 2 * self.size**2)
            self._deep.write(pixels)
        else:
            self._write(row, pixels)
        self.largest[row], self.deep[row] = largest, deep
        if time.monotonic() - self._saved >= CHECKPOINT_SECONDS:
            self.checkpoint()

    def leave_out(self, row: int, reason: str) -> None:
        """One image that cannot be used."""
        self.reasons[row] = reason

    def checkpoint(self) -> None:
        """What is finished so far survives whatever comes."""
        _sync(self._images)
        _sync(self._deep)
        with replacing(self.folder / "rows.npy") as file:
            np.save(file, np.stack([self.largest, self.deep]))
        self._saved = time.monotonic()

    def finish(self, datasets: np.ndarray, settings: Settings) -> tuple[np.ndarray, dict[str, int]]:
        """Bring 16-bit rows to 8 bits and close the gaps of left-out rows; may be stopped and repeated.

        Args:
            datasets: (count,) the dataset of each row.
            settings: where they give no depth, a dataset's is the smallest usual one that holds all its 16-bit files.

        Returns:
            (N,) which row now stands at each place of images.npy, and the depth by dataset that has 16-bit files.
        """
        self.checkpoint()
        depths = {}
        for dataset in sorted(set(datasets[self.deep])):
            rows = np.flatnonzero(self.deep & (datasets == dataset))
            largest = int(self.largest[rows].max())
            depths[dataset] = settings.of(dataset).bits or depth(largest)
            log.info("%s: values up to %d in its 16-bit files, read as %d bit", dataset, largest, depths[dataset])
            in_8_bits = greys(depths[dataset])
            for row in rows:
                self._write(row, in_8_bits[_read(self._deep, row * 2 * self.size**2, self.size, np.uint16)])
        usable = np.flatnonzero(self.largest >= 0)
        order = np.arange(len(usable))
        # The last images move into the gaps. They also stay where they are until the store is whole, so that doing
        # this twice gives the same.
        gaps, last = np.flatnonzero(self.largest[: len(order)] < 0), usable[usable >= len(order)]
        for gap, row in zip(gaps, last, strict=True):
            self._write(gap, _read(self._images, self._start + row * self.size**2, self.size, np.uint8))
        order[gaps] = last
        self._images.seek(0)
        self._images.write(_header(len(order), self.size))
        _sync(self._images)
        return order, depths

    def _write(self, row: int, pixels: np.ndarray) -> None:
        self._images.seek(self._start + row * self.size**2)
        self._images.write(pixels)


def clear(folder: Path, size: int) -> None:
    """Take away what only the making needed, once the store stands under its own name."""
    for path in (folder / "deep.raw", folder / "rows.npy", *folder.glob(f".*{PARTIAL}")):
        path.unlink()
    count = np.lib.format.open_memmap(folder / "images.npy", mode="r").shape[0]
    os.truncate(folder / "images.npy", len(_header(count, size)) + count * size**2)


def _header(count: int, size: int) -> bytes:
    """The .npy header; numpy pads it so that its length does not depend on the count."""
    stream = io.BytesIO()
    facts = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size)}
    np.lib.format.write_array_header_1_0(stream, facts)
    return stream.getvalue()


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")


def _read(file: BinaryIO, start: int, size: int, dtype: type) -> np.ndarray:
    file.seek(start)
    return np.frombuffer(file.read(size * size * np.dtype(dtype).itemsize), dtype).reshape(size, size)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
