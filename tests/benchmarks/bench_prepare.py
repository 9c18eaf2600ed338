"""Preparation against plain decoding and resizing of the same files: what progress, checkpoints and store cost."""

import itertools
import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from lungdet.data.sources.chestxray14 import ChestXray14DataModule
from lungdet.data.store.images import Settings
from lungdet.data.store.store import prepare
from tests.benchmarks.pairs import compare


def run(data: Path) -> list[dict]:
    """Measure on the originals under `data`/ChestX-ray14, from a warm page cache."""
    root = data / "ChestX-ray14"
    manifest = ChestXray14DataModule(root).read()
    files = [root / path for path in manifest["path"]]
    workers = len(os.sched_getaffinity(0))
    for file in files:
        file.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        fresh = (Path(folder) / str(i) for i in itertools.count())

        def prepared() -> float:
            store = next(fresh)
            began = time.perf_counter()
            prepare(manifest, {"chestxray14": root}, Settings(), store)
            seconds = time.perf_counter() - began
            shutil.rmtree(store)
            return len(files) / seconds

        def plain() -> float:
            began = time.perf_counter()
            _plain(files, workers)
            return len(files) / (time.perf_counter() - began)

        detail = f"{len(files)} originals to 224 x 224, {workers} workers each"
        return [compare("preparation / plain decode and resize", prepared, plain, "images/s", detail)]


def _plain(files: list[Path], workers: int) -> None:
    """The same libraries in a bare pool; nothing is kept."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(_decode_and_resize, files):
            pass
    cv2.setNumThreads(threads)


def _decode_and_resize(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        grey = np.asarray(image if image.mode == "L" else image.convert("L"))
    return cv2.resize(grey, (224, 224), interpolation=cv2.INTER_AREA)
