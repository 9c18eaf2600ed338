"""Batches from the prepared store against the bare work on the same pixels, and against the size of the store."""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import quantiles

import cv2
import numpy as np
import pandas as pd
import torch

from lungdet.data.augment import Augmentation
from lungdet.data.serving.batches import Batches
from lungdet.data.sources.chestxray14 import ChestXray14DataModule
from lungdet.data.sources.chestxray14_tables import read_table
from lungdet.machine import hardware
from tests.benchmarks.noise import Noise, write
from tests.benchmarks.pairs import compare

PAPER = {"rotation": 10, "flip": 0.5, "zoom": 0.1, "shift": 0.05}  # conf/augment/paper.yaml
WORKERS = 2
BATCH = 32
FEW, MANY = 450, 112_120
SECONDS = 1.0  # of a measurement, about
DRAWS = 4_050  # in an epoch: nine times the originals


def run(data: Path) -> list[dict]:
    """Measure on the originals under `data`/ChestX-ray14 and on noise, all in the page cache."""
    with tempfile.TemporaryDirectory() as folder:
        results = [_against_bare(data / "ChestX-ray14", folder, augmented) for augmented in (True, False)]
    return results + _growth(data)


def options(augmented: bool) -> dict:
    """Of a data module."""
    augmentation = Augmentation(**PAPER) if augmented else None
    return {"augmentation": augmentation, "num_workers": WORKERS, "batch_size": BATCH}


def rate(batches: Batches, fresh: Callable[[], None] = lambda: None) -> Callable[[], float]:
    """Images a second over whole epochs that take about `SECONDS`; `fresh` comes before each measurement."""
    for _ in batches:  # starts the workers
        pass

    def measured() -> float:
        fresh()
        images, began = 0, time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            for batch in batches:
                images += len(batch["image"])
        return images / (time.perf_counter() - began)

    return measured


def _against_bare(root: Path, folder: str, augmented: bool) -> dict:
    module = ChestXray14DataModule(root, store=folder, **options(augmented))
    module.prepare_data()
    images = module.store.folder / "images.npy"
    fed = rate(module.loader(np.resize(np.arange(len(module.store.images)), DRAWS), training=True))
    name, work = ("augmented", "gather, warp and convert") if augmented else ("not augmented", "gather and convert")
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("fork")) as pool:
        return compare(
            f"batches, {name} / bare {work}",
            fed,
            lambda: _bare(pool, images, augmented),
            "images/s",
            f"{len(module.store.images)} originals, 224 x 224, batches of {BATCH}, {WORKERS} processes each",
        )


def _bare(pool: ProcessPoolExecutor, images: Path, augmented: bool) -> float:
    """Images a second of all processes together."""
    return sum(pool.map(_work, [images] * WORKERS, [augmented] * WORKERS, range(WORKERS)))


def _work(path: Path, augmented: bool, seed: int) -> float:
    """Nothing is drawn, named or handed over: matrices are there, and each batch is dropped."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    images, generator = np.load(path, mmap_mode="r"), np.random.default_rng(seed)
    names = [str(i) for i in range(BATCH)]
    augmentation = Augmentation(**PAPER)
    matrices = augmentation.matrices(names, *images.shape[1:])  # back to where a pixel was
    flags, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, images.shape[:0:-1]
    warped, made = np.empty((BATCH, *images.shape[1:]), np.uint8), 0
    rows = [generator.integers(0, len(images), BATCH) for _ in range(100)]
    began = time.perf_counter()
    while (passed := time.perf_counter() - began) < SECONDS:
        batch = images[rows[made // BATCH % len(rows)]]
        if augmented:
            for i in range(BATCH):
                cv2.warpAffine(batch[i], matrices[i], size, warped[i], flags, cv2.BORDER_REFLECT_101)
            batch = warped
        floats = torch.from_numpy(batch).float().div_(255)
        made += len(floats)
    return made / passed


def _growth(data: Path) -> list[dict]:
    """The same on stores of a few images and of as many as ChestX-ray14 holds, under its own table."""
    table = read_table(data / "ChestX-ray14", 2020)
    manifests = {images: table[:images] for images in (FEW, MANY)}
    results = []
    with tempfile.TemporaryDirectory() as folder:
        stores = {images: Path(folder) / str(images) for images in manifests}
        for images, store in stores.items():
            store.mkdir()
            write(store, images)
        for name, augmented in (("augmented", True), ("not augmented", False)):
            few, many = (
                Noise(stores[images], manifest, **options(augmented)).loader(np.arange(DRAWS) % images, training=True)
                for images, manifest in manifests.items()
            )
            # An epoch of the large store takes half a minute: other images each time, as in a part of an epoch.
            others = _chunks(np.random.default_rng(0).permutation(MANY))

            def fresh(batches: Batches = many, others: Iterator[np.ndarray] = others) -> None:
                batches.sampler.rows = next(others)

            detail = f"random pixels, 224 x 224, in the page cache, batches of {BATCH}, {WORKERS} processes"
            name = f"batches, {name}, of {MANY:,} images / of {FEW}"
            results.append(compare(name, rate(many, fresh), rate(few), "images/s", detail))
        spawned = multiprocessing.get_context("spawn")
        grown = []
        for _ in range(3):
            held = []
            for images, manifest in manifests.items():
                with ProcessPoolExecutor(1, spawned) as pool:
                    held.append(pool.submit(_memory, stores[images], manifest).result())
            grown.append((held[1] - held[0]) / 1e6)
    low, middle, high = quantiles(grown, n=4, method="inclusive")
    detail = (
        f"anonymous, of a process and its {WORKERS} workers, after {DRAWS:,} images; of {FEW} {held[0] / 1e6:.0f} MB"
    )
    name = f"memory with {MANY:,} images - with {FEW}"
    return [*results, {"name": name, "value": middle, "low": low, "high": high, "unit": "MB", "detail": detail}]


def _chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
    while True:
        yield from np.array_split(rows, len(rows) // DRAWS)


def _memory(store: Path, manifest: pd.DataFrame) -> int:
    """Bytes, in a process of its own."""
    batches = Noise(store, manifest, **options(True)).loader(
        np.random.default_rng(0).permutation(len(manifest))[:DRAWS], training=True
    )
    for batch in batches:
        assert batch["image"].isfinite().all()
    return hardware.memory_in_use(torch.device("cpu"))
