"""A finished run's predictions of files against decoding, resizing and the network's forward pass alone."""

import itertools
import logging
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from lungdet.inference import worklist
from lungdet.inference.loading import load
from lungdet.inference.model import Model
from lungdet.machine import hardware
from lungdet.runs import starting
from lungdet.training import fitting
from tests.benchmarks.pairs import compare

CONF = Path(__file__).parents[2] / "conf"
BATCH, SIZE, TRAINED = 32, 224, 64


def run(data: Path) -> list[dict]:
    """Measure on the originals under `data`/ChestX-ray14, from a warm page cache, with a CNN trained for an epoch."""
    files = sorted((data / "ChestX-ray14" / "images").glob("*.png"))
    for file in files:
        file.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        model = load(_trained(data, Path(folder)))
        table = Path(folder) / "images.txt"
        table.write_text("\n".join(map(str, files)))
        logging.disable(logging.WARNING)
        sides = {
            "model.predict": lambda: model.predict(files, BATCH),
            "a worklist": lambda: worklist.write(model, table, Path(folder) / "list.csv", BATCH),
        }
        detail = (
            f"{len(files)} originals to {SIZE} x {SIZE}, the CNN, batches of {BATCH}; network loaded on either side"
        )
        results = [
            compare(
                f"{name} / decode, resize and forward alone",
                lambda work=work: _rate(work, len(files)),
                lambda: _rate(lambda: _alone(model, files), len(files)),
                "images/s",
                detail,
            )
            for name, work in sides.items()
        ]
        logging.disable(logging.NOTSET)
        return results


def _trained(data: Path, folder: Path) -> Path:
    source = ["data=chestxray14", f"data.root={data}/ChestX-ray14", f"data.limit={TRAINED}", f"data.image_size={SIZE}"]
    words = ["model=cnn", "logger=csv", "trainer.max_epochs=1", f"outputs={folder}", f"run_dir={folder}/run"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [*source, *words])
    with starting.start(config) as run:
        fitting.train(run)
    return run.folder


def _alone(model: Model, files: list[Path]) -> np.ndarray:
    """What is written by hand: a pool of threads that decode, a network in the precision that ours has."""
    network, arithmetic = model.networks[0], hardware.choose("auto", "auto")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device, memory_format=getattr(torch, arithmetic.memory_format)).eval()
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    logits = []
    with ThreadPoolExecutor(hardware.cores()) as pool, torch.inference_mode():
        squares = pool.map(_decode_and_resize, files)
        for batch in iter(lambda: [*itertools.islice(squares, BATCH)], []):
            image = torch.from_numpy(np.stack(batch))[:, None].to(device).float().div(255)
            with torch.autocast(device, torch.bfloat16, enabled=arithmetic.precision == "bf16-mixed"):
                logits.append(network(image, torch.ones(len(image), dtype=torch.long, device=device)).float().cpu())
    cv2.setNumThreads(threads)
    return torch.cat(logits).numpy()


def _decode_and_resize(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        grey = np.asarray(image if image.mode == "L" else image.convert("L"))
    return cv2.resize(grey, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def _rate(work: Callable[[], object], images: int) -> float:
    began = time.perf_counter()
    work()
    return images / (time.perf_counter() - began)
