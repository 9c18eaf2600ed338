"""Augmented batches from the prepared store against loaders that decode the originals each time."""

import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets, transforms

from lungdet.data.augment import Augmentation, draw
from lungdet.data.sources.chestxray14 import ChestXray14DataModule
from tests.benchmarks.bench_feeding import BATCH, DRAWS, PAPER, WORKERS, options, rate
from tests.benchmarks.pairs import compare

try:
    import torchxrayvision
except ImportError as error:
    raise SystemExit(f"{error}: the benchmarks need their peers, pip install -e '.[bench]'") from error

DECODED = 96  # originals of a measurement, every fourth or so; each costs some 20 ms


def run(data: Path) -> list[dict]:
    """Measure on the originals under `data`/ChestX-ray14, from a warm page cache."""
    root, results = data / "ChestX-ray14", []
    with tempfile.TemporaryDirectory() as folder:
        module = ChestXray14DataModule(root, store=folder, **options(augmented=True))
        module.prepare_data()
        manifest = module.store.manifest
        rows = np.arange(len(manifest))
        fed = rate(module.loader(np.resize(rows, DRAWS), training=True))
        files = [root / path for path in manifest["path"]]
        some = np.linspace(0, len(files) - 1, DECODED).astype(int)
        peers = {
            "torchxrayvision": _torchxrayvision(root, files, Path(folder)),
            "torchvision's ImageFolder": _image_folder(files, manifest["abnormal"], Path(folder)),
            "OpenCV and albumentations": Decoded(files),
        }
        for name, dataset in peers.items():
            assert len(dataset) == len(files)
            loader = DataLoader(
                Subset(dataset, some), BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True
            )
            _epoch(loader)  # starts the workers
            detail = f"{len(files)} originals, 224 x 224, augmented, batches of {BATCH}, {WORKERS} processes each"
            if name == "torchxrayvision":
                detail += "; its images as they are"
            results.append(compare(f"batches / {name}", fed, lambda loader=loader: _epoch(loader), "images/s", detail))
            del loader
    return results


def _torchxrayvision(root: Path, files: list[Path], folder: Path) -> Dataset:
    """Its reader of this dataset, with its own crop and resizing."""
    table = pd.read_csv(root / "Data_Entry_2017_v2020.csv")
    table[table["Image Index"].isin([file.name for file in files])].to_csv(folder / "entries.csv", index=False)
    transform = transforms.Compose(
        [torchxrayvision.datasets.XRayCenterCrop(), torchxrayvision.datasets.XRayResizer(224)]
    )
    return torchxrayvision.datasets.NIH_Dataset(
        imgpath=str(files[0].parent),
        csvpath=str(folder / "entries.csv"),
        views=["PA", "AP"],
        unique_patients=False,
        transform=transform,
    )


def _image_folder(files: list[Path], abnormal: pd.Series, folder: Path) -> Dataset:
    """What is written with torchvision alone: a folder a class."""
    for file, label in zip(files, abnormal, strict=True):
        place = folder / "by_label" / ("abnormal" if label else "normal") / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(file)
    zoom, shift = PAPER["zoom"], PAPER["shift"]
    steps = [
        transforms.Grayscale(),
        transforms.Resize((224, 224)),
        transforms.RandomAffine(PAPER["rotation"], (shift, shift), (1 - zoom, 1 + zoom)),
        transforms.RandomHorizontalFlip(PAPER["flip"]),
        transforms.ToTensor(),
    ]
    return datasets.ImageFolder(str(folder / "by_label"), transforms.Compose(steps))


class Decoded(Dataset):
    """What is written without a store: open, decode, resize and augment each image each time."""

    def __init__(self, files: list[Path]) -> None:
        self.files, self.augmentation = files, Augmentation(**PAPER)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.files[index]) as image:
            grey = np.asarray(image.convert("L"))
        grey = cv2.resize(grey, (224, 224), interpolation=cv2.INTER_AREA)
        (changed,) = self.augmentation([grey], [draw(0, 0, str(index))], *grey.shape)
        return torch.from_numpy(changed)[None].float().div(255)


def _epoch(loader: DataLoader) -> float:
    """Images a second over an epoch."""
    began = time.perf_counter()
    for _ in loader:
        pass
    return len(loader.dataset) / (time.perf_counter() - began)
