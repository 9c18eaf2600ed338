"""Batches from the prepared store against decoding the originals each epoch, augmentation included in both."""

import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lungdet.data.augment import Augmentation, draw
from lungdet.data.chestxray14 import ChestXray14DataModule
from tests.benchmarks.pairs import compare

AUGMENT = {"rotation": 10, "flip": 0.5, "zoom": 0.1, "shift": 0.05}  # conf/augment/paper.yaml


def run(data: Path) -> list[dict]:
    """Measure on the originals under `data`/ChestX-ray14, with one worker a core, from a warm page cache."""
    workers = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        module = ChestXray14DataModule(
            data / "ChestX-ray14", store=folder, augmentation=Augmentation(**AUGMENT), num_workers=workers
        )
        module.prepare_data()
        rows = np.arange(len(module.store.manifest))
        stored = module.loader(rows, training=True)
        files = [module.root / path for path in module.store.manifest["path"]]
        decoded = DataLoader(
            Decoded(files), batch_size=module.batch_size, shuffle=True, num_workers=workers, persistent_workers=True
        )
        for loader in (stored, decoded):  # start the workers
            _epoch(loader, 1)
        return [
            compare(
                "batches from the store / decoding each epoch",
                lambda: _epoch(stored, 8),
                lambda: _epoch(decoded, 1),
                "images/s",
                f"{len(rows)} originals, 224 x 224, augmented, batches of {module.batch_size}, {workers} workers each",
            )
        ]


class Decoded(Dataset):
    """What is written without a store: open, decode, resize and augment each image each time."""

    def __init__(self, files: list[Path]) -> None:
        self.files, self.augmentation = files, Augmentation(**AUGMENT)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.files[index]) as image:
            grey = np.asarray(image.convert("L"))
        grey = cv2.resize(grey, (224, 224), interpolation=cv2.INTER_AREA)
        return torch.from_numpy(self.augmentation(grey[None], [draw(0, 0, str(index))])).float().div(255)


def _epoch(loader: DataLoader, epochs: int) -> float:
    """Images a second over some epochs."""
    images, began = 0, time.perf_counter()
    for _ in range(epochs):
        for batch in loader:
            images += len(batch["image"] if isinstance(batch, dict) else batch)
    return images / (time.perf_counter() - began)
