"""Training fed from GPU memory: as many images as ChestX-ray14's training part has, of the study's size, augmented."""

import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from statistics import quantiles

import lightning
import numpy as np
import torch
from torch import Tensor

from lungdet.data.augment import Augmentation
from lungdet.evaluation.costs.network import flops
from lungdet.models.backbone import ConvBackbone
from lungdet.models.classifier import Classifier
from lungdet.models.cnn import CNN
from lungdet.models.cnn_lstm import CNNLSTM
from tests.benchmarks.noise import Noise, small, write
from tests.benchmarks.pairs import compare

IMAGES, BATCH, STEPS = 78_080, 256, 30
HEAD = {"hidden": 128, "dropout": 0.5, "learning_rate": 1e-3}
MODELS: dict[str, Callable[[], Classifier]] = {
    "CNN": lambda: CNN(ConvBackbone((32, 64, 128, 256)), **HEAD),
    "CNN-LSTM": lambda: CNNLSTM(ConvBackbone((32, 64, 128, 256)), layers=2, width=128, **HEAD),
}


def _batches(folder: str, loader: str) -> Iterator[dict[str, Tensor]]:
    """Endless epochs of training batches, on the GPU."""
    augmentation = Augmentation(rotation=10, flip=0.5, zoom=0.1, shift=0.05)
    options = {"batch_size": BATCH, "num_workers": 8, "augmentation": augmentation, "loader": loader}
    data = Noise(folder, small(IMAGES), **options)
    root = {"default_root_dir": folder, "logger": False}
    data.trainer = lightning.Trainer(accelerator="gpu", devices=1, **root)  # so that processes send it bytes
    made = data.loader(np.arange(IMAGES), training=True)
    for epoch in range(1000):
        made.sampler.set_epoch(epoch)
        for batch in made:
            yield {name: tensor.cuda(non_blocking=True) for name, tensor in batch.items()}


def run(data: Path) -> list[dict]:
    """Measure on the GPU, in bf16, channels-last, compiled; nothing without one. `data` is not needed."""
    if not torch.cuda.is_available():
        print("  no CUDA GPU: not measured")
        return []
    torch.backends.cudnn.benchmark = True
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), IMAGES)
        device, workers = (_batches(folder, loader) for loader in ("device", "workers"))
        next(device), next(workers)
        results = [
            compare(
                "batches made on the GPU", lambda: _rate(device), lambda: _rate(workers), "images/s",
                f"against 8 processes that make them; both augmented, batches of {BATCH}",
            )
        ]  # fmt: skip
        steps = {name: _step(make()) for name, make in MODELS.items()}
        for name, step in steps.items():
            results += _fed(name, step, device)
        one = next(device)
        again = {name: chain.from_iterable([one] * STEPS for _ in iter(int, 1)) for name in MODELS}
        step_time = {name: lambda name=name: 1e3 * BATCH / _rate(again[name], steps[name]) for name in MODELS}
        detail = f"time, against the CNN's; {BATCH} images"
        results.append(compare("CNN-LSTM's training step", step_time["CNN-LSTM"], step_time["CNN"], "ms", detail))
    return results


def _fed(name: str, step: Callable, device: Iterator) -> list[dict]:
    """A model's steps on the loader's batches against steps on one batch, and whole epochs of the former."""
    one = next(device)
    again = chain.from_iterable([one] * STEPS for _ in iter(int, 1))
    for _ in range(10):
        step(next(device))
    detail = f"fed by the loader against one batch already there; {BATCH} images, bf16, channels-last, compiled"
    fed = compare(f"{name}'s training", lambda: _rate(device, step), lambda: _rate(again, step), "images/s", detail)
    seconds = [IMAGES / _rate(device, step, IMAGES // BATCH) for _ in range(3)]
    low, middle, high = quantiles(seconds, n=4)
    work = 3 * flops(MODELS[name](), 224) * IMAGES / middle / 1e12
    detail = f"an epoch of {IMAGES:,} images, augmented, without validation: {work:.0f} TFLOP/s"
    return [fed, {"name": f"{name}'s epoch", "seconds": middle, "low": low, "high": high, "detail": detail}]


def _rate(batches: Iterator, step: Callable = lambda batch: None, steps: int = STEPS) -> float:
    """Images a second."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        step(next(batches))
    torch.cuda.synchronize()
    return steps * BATCH / (time.perf_counter() - began)


def _step(model: Classifier) -> Callable[[dict[str, Tensor]], None]:
    """A training step as the trainer makes it, compiled."""
    model.cuda().train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    forward = torch.compile(model.forward)

    def step(batch: dict[str, Tensor]) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            logits = forward(batch["image"].to(memory_format=torch.channels_last), batch["length"])
        loss = torch.nn.functional.cross_entropy(logits.float(), batch["target"].long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
