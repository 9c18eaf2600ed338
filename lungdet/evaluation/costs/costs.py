"""What models cost under the same conditions: parameters, FLOPs, speed, latency and memory, measured in turns."""

import gc
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles
from typing import Any

from omegaconf import OmegaConf

from lungdet.errors import InputError, RunError
from lungdet.evaluation.costs import network
from lungdet.evaluation.costs.network import Network
from lungdet.machine import hardware
from lungdet.page.wording import join, label, number
from lungdet.runs.folder import Run

log = logging.getLogger(__name__)

TURN = 0.05
"""Seconds that a turn of the slowest model lasts at least: fast calls are repeated."""
MOST = 30
"""Rounds of turns, if they fit into the time given."""
STEP = 10.0
"""Seconds that a training step may last; the batch is halved until it does."""
PROBE = 4
"""Images in the step that foretells it."""

MEANING = {
    "flops": "of one image's forward pass: convolutions, matrix products and LSTMs, a multiply-add counted as 2",
    "training_images_per_second": "forward, backward and optimiser step, and the average of the weights where a run "
    "keeps one (trainer.averaging), on a batch already in memory; on a CPU the memory of a step is kept for the next "
    "one, as train.py does on single images",
    "images_per_second": "forward pass, on a batch already in memory",
    "latency_ms": "forward pass of a single image already in memory",
    "peak_memory_bytes": "of a training step: weights, their average, optimiser, batch, activations and gradients "
    "alive at once; on a GPU as its allocator counts, on a CPU the sum of tensors, without the program and scratch "
    "memory within an operation; null on other devices, which tell no peak",
    "others_cores": "how many cores other programs kept busy meanwhile; null where the system does not tell",
    "quiet": "false where that left too few for this one: speeds are too low, and ratios mislead however close their "
    "quartiles",
    "ratios": "to the model `against`; of speeds and latency, round by round",
    "median, low, high": "median and quartiles over `rounds`, in each of which every model had its turn",
}
"""What the keys of `measure` mean."""
TIMED = {
    "training_images_per_second": "training speed",
    "images_per_second": "inference speed",
    "latency_ms": "latency",
}
"""What is timed, and what it is called."""

_KEYS = {
    "image_size": "data.image_size",
    "batch_size": "data.batch_size",
    "precision": "trainer.precision",
    "memory_format": "trainer.memory_format",
    "accelerator": "trainer.accelerator",
}
"""What all models are measured under, and where it stands in a run's config.yaml."""


def measure(runs: Mapping[str, Run], trust: Sequence[str] = ()) -> dict:
    """What each model costs on this machine, all at one image size, batch size, precision and memory format.

    These are the first run's; where another run has its own, a remark says so. Weights do not matter for cost: models
    are built from their runs' configurations, and none are downloaded or loaded. Two models of the study's size take
    some 25 s on two quiet cores. On busy ones ratios mislead too: an LSTM's many short steps wait more often for a
    core than few long ones.

    Args:
        runs: one run of each model.
        trust: packages whose classes the runs may name.

    Returns:
        JSON-ready, see `MEANING`: the conditions, `remarks` on what is not as a run has it, and under `models` what
        each costs, or `reason`, why it could not be measured. Where nothing could be measured at all, `reason` alone.
    """
    turns, remarks = _Turns(runs), list[str]()
    try:
        settings = _settings(runs, remarks)
        batch_size = settings.pop("batch_size")
        place, deviations = network.choose(**settings)
    except InputError as error:  # of a run folder that somebody has edited; the rest of a report does not need it
        log.warning("efficiency is not measured: %s", error)
        return {"reason": str(error)}
    log.info("measuring what %s cost, in turns: half a minute, more for large ones", number(len(runs), "model"))
    remarks += deviations
    turns.models = turns.each(lambda run: Network(run, place, trust))
    before, began = _cpu_seconds_of_others(), time.perf_counter()
    images = _batch_size(turns, batch_size, remarks)
    turns.each(lambda model: model.load(images))
    memory = turns.each(Network.peak_memory)
    with hardware.memory_kept():  # as train.py does on single images
        seconds = {"training_images_per_second": turns.rounds(Network.train, within=12.0, fewest=3)}
    turns.each(lambda model: model.network.eval())
    seconds["images_per_second"] = turns.rounds(Network.infer, within=4.0, fewest=9)
    seconds["latency_ms"] = turns.rounds(Network.answer, within=3.0, fewest=9)
    busy = None if before is None else (_cpu_seconds_of_others() - before) / (time.perf_counter() - began)
    if not turns.models:
        return {"reason": "; ".join(turns.reasons())}
    first, conditions = next(iter(turns.models)), place.described()
    remarks += _remarks(runs, turns.models)
    return {
        "meaning": MEANING,
        **conditions,
        "batch_size": images,
        "rounds": {quantity: len(by_model[first]) for quantity, by_model in seconds.items()},
        "others_cores": busy,
        "quiet": busy is None or busy <= conditions["cores"] - 0.9 * conditions["threads"],
        "remarks": remarks,
        "against": first,
        "models": _by_model(runs, turns, memory, seconds, images),
    }


def _by_model(runs: Mapping[str, Run], turns: "_Turns", memory: dict, seconds: dict, images: int) -> dict[str, dict]:
    """What each model costs, and its ratios to the first that was measured."""
    first, costs = next(iter(turns.models)), dict[str, dict]()
    for name in runs:
        if name in turns.failed:
            costs[name] = {"reason": turns.failed[name]}
            continue
        model = turns.models[name]
        costs[name] = {"parameters": model.parameters, "flops": model.flops, "peak_memory_bytes": memory[name]}
        for quantity, by_model in seconds.items():
            rounds = by_model[name]
            costs[name][quantity] = _spread([1000 * s if quantity == "latency_ms" else images / s for s in rounds])
        if name != first:
            costs[name]["ratios"] = _ratios(costs, seconds, first, name)
    return costs


def _remarks(runs: Mapping[str, Run], models: Mapping[str, Network]) -> list[str]:
    """Where what was measured is not what the runs have trained."""
    remarks = []
    for name, model in models.items():
        recorded = runs[name].environment.get("parameters")
        if recorded not in (None, model.parameters):
            remarks.append(
                f"{label(name)} has {model.parameters:,} parameters as built now, and had {recorded:,} when its run "
                "was trained: the code changed since."
            )
    if series := [label(name) for name, model in models.items() if model.network.visits > 1]:
        remarks.append(
            "Measured on single images. A series costs about as much as so many single images; it is read by "
            f"{join(series)}."
        )
    return remarks


def _settings(runs: Mapping[str, Run], remarks: list[str]) -> dict[str, Any]:
    """What all models are measured under: as the first run has it.

    Raises:
        RunError: it has not.
    """
    settings, first = {}, next(iter(runs))
    for name, key in _KEYS.items():
        values = {model: OmegaConf.select(run.config, key) for model, run in runs.items()}
        if values[first] is None:
            raise RunError(f"{runs[first].folder / 'config.yaml'} has no {key}")
        settings[name] = values[first]
        if len(set(values.values())) > 1:
            listed = ", ".join(f"{label(model)} {value}" for model, value in values.items())
            remarks.append(f"The runs differ in `{key}` ({listed}); all were measured as {label(first)} has it.")
    return settings


class _Turns:
    """Models that take turns; one that fails is out, with the reason in `failed`.

    `torch.utils.benchmark` times one statement after another: what changes on the machine meanwhile would be taken for
    a difference between models.
    """

    def __init__(self, models: Mapping[str, Any]) -> None:
        self.models, self.failed = dict(models), dict[str, str]()

    def each(self, call: Callable[[Any], Any], first: int = 0) -> dict[str, Any]:
        """What `call` gives for each model still in, beginning with the `first`, modulo their number."""
        names, results = list(self.models), {}
        first %= max(1, len(names))
        for name in names[first:] + names[:first]:
            try:
                results[name] = call(self.models[name])
                continue
            except Exception as error:
                del self.models[name]
                self.failed[name] = _reason(error)
                log.warning("what %s costs is not measured: %s", label(name), self.failed[name])
            gc.collect()  # the others may need its memory
        return {name: results[name] for name in self.models}

    def rounds(self, call: Callable[[Network], None], within: float, fewest: int) -> dict[str, list[float]]:
        """Seconds a call, by model, one number a round: `fewest` rounds and more as long as `within` seconds last.

        Each round begins with another model.
        """
        self.each(call)  # the first is slow
        once = self.each(lambda model: model.seconds(call, 1)).values()
        calls = max(1, round(TURN / max(once, default=1.0)))
        rounds, began = [], time.perf_counter()
        while len(rounds) < fewest or (len(rounds) < MOST and time.perf_counter() - began < within):
            rounds.append(self.each(lambda model: model.seconds(call, calls), len(rounds)))
        return {name: [seconds[name] for seconds in rounds] for name in self.models}

    def reasons(self) -> list[str]:
        """Why models are out."""
        return [f"{label(name)}: {reason}" for name, reason in self.failed.items()]


def _batch_size(turns: _Turns, configured: int, remarks: list[str]) -> int:
    """The runs' batch, halved until the slowest model's training step ends in time on this machine."""
    images, probe = configured, min(configured, PROBE)
    turns.each(lambda model: model.load(probe))
    turns.each(Network.train)
    slowest = max(turns.each(lambda model: model.seconds(Network.train, 1)).values(), default=0.0)
    while images > probe and images * slowest / probe > STEP:
        images = max(probe, images // 2)
    if images < configured:
        remarks.append(f"Measured on batches of {images} images: the run's {configured} would take too long here.")
    return images


def _cpu_seconds_of_others() -> float | None:
    """Seconds that cores have spent on other programs than this since the system started; None where it is no Linux."""
    try:
        with open("/proc/stat") as file:
            user, nice, system, _idle, _waiting, *interrupts = map(int, file.readline().split()[1:9])
    except OSError:
        return None
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK") - time.process_time()


def _spread(values: Sequence[float]) -> dict[str, float]:
    low, _, high = quantiles(values, method="inclusive")
    return {"median": median(values), "low": low, "high": high}


def _ratios(costs: dict, seconds: dict, first: str, name: str) -> dict:
    """A model's costs as multiples of the first one's; what was timed, round by round, so that slow drift cancels."""
    ratios: dict[str, Any] = {}
    for quantity in ("parameters", "flops", "peak_memory_bytes"):
        this, that = costs[name][quantity], costs[first][quantity]
        ratios[quantity] = this / that if this and that else None
    for quantity in TIMED:
        longer = [this / that for this, that in zip(seconds[quantity][name], seconds[quantity][first], strict=True)]
        ratios[quantity] = _spread(longer if quantity == "latency_ms" else [1 / ratio for ratio in longer])
    return ratios


def _reason(error: BaseException) -> str:
    """Our own message if one caused the error, else what first went wrong: Hydra wraps what a constructor raises."""
    while not isinstance(error, InputError) and error.__cause__ is not None:
        error = error.__cause__
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {line}".rstrip(": .")
