"""The leak guard on as many prepared images as ChestX-ray14 has: synthetic films, copies and look-alikes among them."""

import statistics
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np

from lungdet.data.store.copies import search

IMAGES, COPIES, ALIKE = 112_120, 200, 20_000
"""How many images; how many of them are cropped copies; how many resemble another image enough to be compared."""


def run(data: Path) -> list[dict]:
    """Measure three times, the memory map in the page cache as far as that holds it; `data` is not needed."""
    with tempfile.TemporaryDirectory() as folder:
        images = _draw(Path(folder) / "images.npy")
        seconds, memory, found = [], [], 0
        for _ in range(3):
            before = _anonymous()
            with _Peak() as peak:
                began = time.perf_counter()
                found = len(search(images))
                seconds.append(time.perf_counter() - began)
            memory.append(peak.bytes - before)
    low, middle, high = statistics.quantiles(seconds, n=4)
    detail = (
        f"{IMAGES:,} synthetic images, 224 x 224: {found} pairs found, {COPIES} planted; "
        f"{max(memory) / 1e6:,.0f} MB of anonymous memory at most"
    )
    return [{"name": "the search for copies", "seconds": middle, "low": low, "high": high, "detail": detail}]


def _draw(path: Path) -> np.ndarray:
    """Films of a common shape, each with structure of its own at every scale, and grain."""
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (IMAGES, 224, 224))
    rng = np.random.default_rng(0)
    chest = _structure(rng, 5)
    grain = rng.normal(0, 6, (448, 448)).astype(np.float32)
    for i in range(IMAGES):
        if i >= IMAGES - COPIES:
            images[i] = cv2.resize(images[i - IMAGES // 2][1:-2, 2:-1], (224, 224), interpolation=cv2.INTER_LINEAR)
            continue
        if i % 5 != 4 or i >= 5 * ALIKE:
            own = sum(_structure(rng, n) for n in (6, 12, 24))
        # Every fifth image has the coarse shape of the one before it and details of its own.
        top, left = rng.integers(0, 224, 2)
        fine = _structure(rng, 40) * 1.6 + grain[top : top + 224, left : left + 224]
        images[i] = np.clip(128 + 2 * chest + 1.2 * own + fine, 0, 255)
    images.flush()
    return np.load(path, mmap_mode="r")


def _structure(rng: np.random.Generator, cells: int) -> np.ndarray:
    coarse = rng.normal(0, 12, (cells, cells)).astype(np.float32)
    return cv2.resize(coarse, (224, 224), interpolation=cv2.INTER_CUBIC)


def _anonymous() -> int:
    """Bytes of this process's memory that no file stands behind; a map's pages can be dropped at any time."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


class _Peak:
    """The most anonymous memory while its block runs, looked at ten times a second."""

    def __enter__(self) -> "_Peak":
        self.bytes, self._done = _anonymous(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            self.bytes = max(self.bytes, _anonymous())
