"""train.py against the loop one would write by hand: same images, optimiser, precision and logging interval."""

import itertools
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

import train
from lungdet import hardware, starting
from tests.benchmarks.pairs import compare

MODELS = ("cnn", "cnn_lstm")
CONF = Path(__file__).parents[2] / "conf"
EPOCHS = 2  # the first one starts the workers and warms up; the last one counts


def run(data: Path) -> list[dict]:
    """Measure both models on the originals under `data`/ChestX-ray14."""
    results = []
    for model in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            names = (f"{folder}/{i}" for i in itertools.count())

            def configured(model: str = model, folder: str = folder) -> DictConfig:
                choices = [f"model={model}", "data=chestxray14", f"data.root={data}/ChestX-ray14", "logger=csv"]
                paths = [f"outputs={folder}", f"run_dir={next(names)}", f"trainer.max_epochs={EPOCHS}"]  # noqa: B023
                with initialize_config_dir(str(CONF), version_base="1.3"):
                    return compose("train", choices + paths)

            results.append(
                compare(
                    f"train.py / bare PyTorch loop, {model}",
                    lambda: _framework(configured()),
                    lambda: _bare(configured()),
                    "images/s",
                    "training alone, 450 originals, 224 x 224, batches of 32, precision as train.py chooses",
                )
            )
    return results


def _framework(config: DictConfig) -> float:
    with starting.start(config) as run:
        train.train(run)
    return float(pd.read_csv(run.folder / "metrics.csv")["images_per_second"].iloc[-1])


def _bare(config: DictConfig) -> float:
    """Adam on cross-entropy, the mean loss read once an epoch."""
    torch.manual_seed(config.seed)
    model = instantiate(config.model)
    data = train.build_data(config, model)
    data.setup()
    arithmetic = hardware.choose("auto", "auto")
    bf16 = arithmetic.precision == "bf16-mixed"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device, memory_format=getattr(torch, arithmetic.memory_format)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=config.model.learning_rate)
    loader = data.train_dataloader()
    for epoch in range(EPOCHS):
        loader.sampler.set_epoch(epoch)
        images, total, began = 0, torch.zeros((), device=device), time.perf_counter()
        for batch in loader:
            image, length, target = (batch[key].to(device) for key in ("image", "length", "target"))
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                logits = model(image, length)
            loss = F.cross_entropy(logits.float(), target.long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
            images += len(image)
        assert total.isfinite()
        rate = images / (time.perf_counter() - began)
    return rate
