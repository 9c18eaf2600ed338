"""train.py against a loop written by hand and against Lightning's defaults; what averaging and waiting take of it."""

import itertools
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import pandas as pd
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from lungdet.evaluation.costs.network import Network, choose
from lungdet.machine import hardware
from lungdet.runs import starting
from lungdet.runs.folder import Run
from lungdet.training import fitting
from tests.benchmarks.pairs import compare

MODELS = ("cnn", "cnn_lstm")
CONF = Path(__file__).parents[2] / "conf"
LIMIT = 200
FEW = f"data.limit={LIMIT}"
PLAIN = ("trainer.precision=32-true", "trainer.memory_format=contiguous_format")
STEPS = 4
EPOCHS = 5
WARM = 2
"""The first epochs do not count: they start the workers, and memory that is kept grows until all that an epoch does has
found room in it, in train.py once more after the first validation (.4 s)."""


def run(data: Path) -> list[dict]:
    """Measure on the originals under `data`/ChestX-ray14, each side in a process of its own."""
    detail = f"about {LIMIT} of 450 originals, 224 x 224, batches of 32"
    results = []
    spawned = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, spawned) as ours,
        ProcessPoolExecutor(1, spawned) as theirs,
    ):
        names = (f"{folder}/{i}" for i in itertools.count())

        def configured(model: str, *more: str) -> list[str]:
            choices = [f"model={model}", "data=chestxray14", f"data.root={data}/ChestX-ray14", "logger=csv"]
            paths = [f"outputs={folder}", f"run_dir={next(names)}", f"trainer.max_epochs={EPOCHS}"]
            return [*choices, *paths, *more]

        for model in MODELS:
            for kept in (False, True):
                results.append(
                    compare(
                        f"train.py / bare PyTorch loop{' that keeps memory, too' if kept else ''}, {model}",
                        lambda model=model: ours.submit(_framework, configured(model, FEW)).result(),
                        lambda model=model, kept=kept: theirs.submit(_bare, configured(model, FEW), kept).result()[0],
                        "images/s",
                        f"training alone, {detail}, precision as train.py chooses",
                    )
                )
        results.append(
            compare(
                "precision and memory format as train.py chooses / Lightning's fp32",
                lambda: ours.submit(_framework, configured("cnn", FEW)).result(),
                lambda: ours.submit(_framework, configured("cnn", FEW, *PLAIN)).result(),
                "images/s",
                f"training alone, the CNN, {detail}",
            )
        )
        for model in MODELS:
            averaged, plain = (_network(configured(model, *more)) for more in ([], ["trainer.averaging=null"]))
            results.append(
                compare(
                    f"a step with averaged weights / without, {model}",
                    partial(_pace, averaged),
                    partial(_pace, plain),
                    "images/s",
                    "forward, backward, optimizer and average, 224 x 224, a batch of 32 in memory, in one process",
                )
            )
        waits = [100 * theirs.submit(_bare, configured("cnn")).result()[1] for _ in range(3)]
    low, middle, high = quantiles(waits, n=4, method="inclusive")
    detail = "of an epoch of the bare loop, the CNN, 450 originals, augmented"
    name = "waiting for batches"
    return [*results, {"name": name, "value": middle, "low": low, "high": high, "unit": "%", "detail": detail}]


def _composed(overrides: list[str]) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides)


def _framework(overrides: list[str]) -> float:
    with starting.start(_composed(overrides)) as run:
        fitting.train(run)
    return float(pd.read_csv(run.folder / "metrics.csv")["images_per_second"].iloc[WARM:].median())


def _network(overrides: list[str]) -> Network:
    """The network with a batch and what a step of it needs, two steps in."""
    config = _composed(overrides)
    place, _ = choose("auto", "auto", "auto", config.data.image_size)
    network = Network(Run(Path(config.run_dir), config), place)
    network.load(config.data.batch_size)
    network.seconds(Network.train, 2)
    return network


def _pace(network: Network) -> float:
    """Images a second of a few steps."""
    return len(network.batch["image"]) / network.seconds(Network.train, STEPS)


def _bare(overrides: list[str], kept: bool = False) -> tuple[float, float]:
    """Adam on cross-entropy, the mean loss read once an epoch: images a second, and the share of time spent waiting.

    Medians over the epochs that count. With `kept` memory stays from step to step, as in train.py.
    """
    config = _composed(overrides)
    torch.manual_seed(config.seed)
    model = instantiate(config.model)
    data = fitting.build_data(config, model)
    data.setup()
    arithmetic = hardware.choose("auto", "auto")
    bf16 = arithmetic.precision == "bf16-mixed"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device, memory_format=getattr(torch, arithmetic.memory_format)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=config.model.learning_rate)
    loader = data.train_dataloader()
    rates, shares = [], []
    with hardware.memory_kept() if kept else nullcontext():
        for epoch in range(EPOCHS):
            loader.sampler.set_epoch(epoch)
            images, waited, total = 0, 0.0, torch.zeros((), device=device)
            began = asked = time.perf_counter()
            for batch in loader:
                waited += time.perf_counter() - asked
                image, length, target = (batch[key].to(device) for key in ("image", "length", "target"))
                with torch.autocast(device, torch.bfloat16, enabled=bf16):
                    logits = model(image, length)
                loss = F.cross_entropy(logits.float(), target.long())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach()
                images += len(image)
                asked = time.perf_counter()
            assert total.isfinite()
            took = time.perf_counter() - began
            rates.append(images / took)
            shares.append(waited / took)
    return median(rates[WARM:]), median(shares[WARM:])
