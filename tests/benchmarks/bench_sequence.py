"""What reading a sequence costs: a training step beside the CNN's, and of visits with the length of the series."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from lungdet.evaluation.costs.network import peak_of_tensors
from lungdet.machine import hardware
from lungdet.models.backbone import ConvBackbone
from lungdet.models.classifier import Classifier
from lungdet.models.cnn import CNN
from lungdet.models.cnn_lstm import CNNLSTM
from tests.benchmarks.pairs import compare

WIDTHS = (32, 64, 128, 256)
HEAD = {"hidden": 128, "dropout": 0.5, "learning_rate": 1e-3}
LSTM = {"layers": 2, "width": 128}
BATCH = 32  # of single images
IMAGES = 16  # of series, in as many cases as the length leaves
LENGTHS = (1, 2, 4, 8, 16)


def run(data: Path) -> list[dict]:
    """Measure in the default precision; `data` is not needed, weights and pixels being of no account."""
    cnn = _step(CNN(ConvBackbone(WIDTHS), **HEAD), *_batch(BATCH, 1))
    results = []
    for sequence in ("rows", "columns", "patches"):
        lstm = _step(CNNLSTM(ConvBackbone(WIDTHS), sequence=sequence, **HEAD, **LSTM), *_batch(BATCH, 1))
        detail = f"time of a step on {BATCH} single images, 224 x 224, against the CNN's"
        results.append(compare(f"CNN-LSTM's training step, {sequence}", _time(lstm), _time(cnn), "ms", detail))
    single, memory = _series(1), {length: _memory(length) for length in LENGTHS}
    for length in LENGTHS[1:]:
        detail = (
            f"time of a step on {IMAGES} images as {IMAGES // length} series of {length}, against as many of 1; memory "
            f"{memory[length] / memory[1]:.3f} times"
        )
        results.append(compare(f"visits, series of {length}", _time(_series(length)), _time(single), "ms", detail))
    return results


def _batch(cases: int, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise: images, lengths and labels."""
    return torch.rand(cases * length, 1, 224, 224), torch.full((cases,), length), torch.arange(cases) % 2


def _series(length: int) -> Callable[[], None]:
    model = CNNLSTM(ConvBackbone(WIDTHS), sequence="visits", visits=max(LENGTHS), **HEAD, **LSTM)
    return _step(model, *_batch(IMAGES // length, length))


def _memory(length: int) -> int:
    """Bytes of tensors alive at the peak of a step; the first makes the optimiser's."""
    step = _series(length)
    step()
    return peak_of_tensors(step, [])


def _step(model: Classifier, image: torch.Tensor, length: torch.Tensor, target: torch.Tensor) -> Callable[[], None]:
    """A training step in the default precision and memory format."""
    arithmetic = hardware.choose("auto", "auto")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device, memory_format=getattr(torch, arithmetic.memory_format)).train()
    image, length, target = (tensor.to(device) for tensor in (image, length, target))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=arithmetic.precision == "bf16-mixed"):
            logits = model(image, length)
        loss = torch.nn.functional.cross_entropy(logits.float(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _time(step: Callable[[], None]) -> Callable[[], float]:
    """Milliseconds a step, the mean of three."""

    def measured() -> float:
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(3):
            step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - began) / 3

    return measured
