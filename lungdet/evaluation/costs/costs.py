"""What models cost under the same conditions: parameters, FLOPs, speed, latency and memory, measured in turns."""

import gc
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from lungdet.errors import InputError
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
    "training_images_per_second": "forward, backward and optimiser step, on a batch already in memory; on a CPU the "
    "memory of a step is kept for the next one, as train.py does on single images",
    "images_per_second": "forward pass, on a batch already in memory",
    "latency_ms": "forward pass of a single image already in memory",
    "peak_memory_bytes": "of a training step: weights, optimiser, batch, activations and gradients alive at once; on a "
    "GPU as its allocator counts, on a CPU the sum of tensors, without the program and scratch memory within an "
    "operation; null on other devices, which tell no peak",
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

_KEYS = ("data.image_size", "data.batch_size", "trainer.precision", "trainer.memory_format", "trainer.accelerator")


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
        JSON-ready. `models`: each one's `parameters`, `flops`, `training_images_per_second`, `images_per_second`,
        `latency_ms`, `peak_memory_bytes` (see `MEANING`) and `ratios` to the model `against`; or `reason`, why it could
        not be measured. Beside them the conditions: `device`, `cores`, `threads`, `torch`, `precision`,
        `memory_format`, `image_size`, `batch_size`, `rounds`, `others_cores`, `quiet`, and `remarks`: sentences
        on what is not as a run has it. Where nothing could be measured at all, `reason` alone.
    """
    turns, remarks = _Turns(runs), list[str]()
    try:
        wanted = _conditions(turns, remarks)
        place, said = network.choose(wanted.accelerator, wanted.precision, wanted.memory_format, wanted.image_size)
        remarks += said
    except Exception as error:  # no model's fault; the rest of a report does not depend on it
        log.warning("efficiency is not measured: %s", _reason(error))
        return {"reason": _reason(error)}
    log.info("measuring what %s cost, in turns: half a minute, more for large ones", number(len(runs), "model"))
    turns.models = turns.each(lambda run: Network(run, place, trust))
    before, began = _cpu_seconds_of_others(), time.perf_counter()
    images = _batch_size(turns, wanted.batch_size, remarks)
    turns.each(lambda model: model.load(images))
    memory = turns.each(Network.peak_memory)
    with hardware.memory_kept():  # as train.py does on single images
        seconds = {"training_images_per_second": turns.rounds(Network.train, within=12.0, fewest=3)}
    turns.each(lambda model: model.network.eval())
    seconds["images_per_second"] = turns.rounds(Network.infer, within=4.0, fewest=9)
    seconds["latency_ms"] = turns.rounds(Network.answer, within=3.0, fewest=9)
    busy = None if before is None else (_cpu_seconds_of_others() - before) / (time.perf_counter() - began)
    if not turns.models:
        return {"reason": "; ".join(f"{label(name)}: {reason}" for name, reason in turns.failed.items())}
    found: dict[str, dict] = {}
    for name in runs:
        if name in turns.failed:
            found[name] = {"reason": turns.failed[name]}
            continue
        model, recorded = turns.models[name], runs[name].environment.get("parameters")
        found[name] = {"parameters": model.parameters, "flops": model.flops, "peak_memory_bytes": memory[name]}
        for quantity in TIMED:
            each = seconds[quantity][name]
            found[name][quantity] = _spread([1000 * s if quantity == "latency_ms" else images / s for s in each])
        if recorded not in (None, model.parameters):
            remarks.append(
                f"{label(name)} has {model.parameters:,} parameters as built now, and had {recorded:,} when its run "
                "was trained: the code changed since."
            )
    if series := [label(name) for name, model in turns.models.items() if model.network.visits > 1]:
        remarks.append(
            "Measured on single images. A series costs about as much as so many single images; it is read by "
            f"{join(series)}."
        )
    first, *others = [name for name in runs if name in turns.models]
    for name in others:
        found[name]["ratios"] = _ratios(found, seconds, first, name)
    described = place.described()
    return {
        "meaning": MEANING,
        **described,
        "batch_size": images,
        "rounds": {quantity: len(by_model[first]) for quantity, by_model in seconds.items()},
        "others_cores": busy,
        "quiet": busy is None or busy <= described["cores"] - 0.9 * described["threads"],
        "remarks": remarks,
        "against": first,
        "models": found,
    }


class _Conditions(NamedTuple):
    """What all models are measured under; in a run's config.yaml under `_KEYS`."""

    image_size: int
    batch_size: int
    precision: str
    memory_format: str
    accelerator: str


def _conditions(turns: "_Turns", remarks: list[str]) -> _Conditions:
    """Those of the first run that has them all; a run whose configuration cannot be read is out.

    Raises:
        InputError: no run has.
    """
    found = turns.each(lambda run: _Conditions(*[OmegaConf.select(run.config, key) for key in _KEYS]))
    first = next((name for name, one in found.items() if None not in one), None)
    if first is None:
        unread = [f"{label(name)}: {reason}" for name, reason in turns.failed.items()]
        raise InputError("; ".join([f"no run's config.yaml has all of {', '.join(_KEYS)}", *unread]))
    for key, *values in zip(_KEYS, *found.values(), strict=True):
        said = {name: value for name, value in zip(found, values, strict=True) if value is not None}
        if len(set(said.values())) > 1:
            each = ", ".join(f"{label(name)} {value}" for name, value in said.items())
            remarks.append(f"The runs differ in `{key}` ({each}); all were measured as {label(first)} has it.")
    return found[first]


class _Turns:
    """Models that take turns; one that fails is out, with the reason in `failed`."""

    def __init__(self, models: Mapping[str, Any]) -> None:
        self.models, self.failed = dict(models), dict[str, str]()

    def each(self, do: Callable[[Any], Any], first: int = 0) -> dict[str, Any]:
        """What `do` gives for each model still in, beginning with the `first`, modulo their number."""
        names, found = list(self.models), {}
        first %= max(1, len(names))
        for name in names[first:] + names[:first]:
            try:
                found[name] = do(self.models[name])
                continue
            except Exception as error:
                del self.models[name]
                self.failed[name] = _reason(error)
                log.warning("what %s costs is not measured: %s", label(name), self.failed[name])
            gc.collect()  # the others may need its memory
        return {name: found[name] for name in self.models}

    def rounds(self, call: Callable[[Network], None], within: float, fewest: int) -> dict[str, list[float]]:
        """Seconds a call, by model, one number a round: `fewest` rounds and more as long as `within` seconds last.

        Each round begins with another model.
        """
        self.each(call)  # the first is slow
        once = self.each(lambda model: model.seconds(call, 1)).values()
        calls = max(1, round(TURN / max(once, default=1.0)))
        found, began = [], time.perf_counter()
        while len(found) < fewest or (len(found) < MOST and time.perf_counter() - began < within):
            found.append(self.each(lambda model: model.seconds(call, calls), len(found)))
        return {name: [one[name] for one in found] for name in self.models}


def _batch_size(turns: _Turns, wanted: int, remarks: list[str]) -> int:
    """The runs' batch, halved until the slowest model's training step ends in time on this machine."""
    images, probe = wanted, min(wanted, PROBE)
    turns.each(lambda model: model.load(probe))
    turns.each(Network.train)
    slowest = max(turns.each(lambda model: model.seconds(Network.train, 1)).values(), default=0.0)
    while images > probe and images * slowest / probe > STEP:
        images = max(probe, images // 2)
    if images < wanted:
        remarks.append(f"Measured on batches of {images} images: the run's {wanted} would take too long here.")
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


def _ratios(found: dict, seconds: dict, first: str, name: str) -> dict:
    """A model's costs as multiples of the first one's; what was timed, round by round, so that slow drift cancels."""
    ratios: dict[str, Any] = {}
    for quantity in ("parameters", "flops", "peak_memory_bytes"):
        this, that = found[name][quantity], found[first][quantity]
        ratios[quantity] = this / that if this and that else None
    for quantity in TIMED:
        longer = [this / that for this, that in zip(seconds[quantity][name], seconds[quantity][first], strict=True)]
        ratios[quantity] = _spread(longer if quantity == "latency_ms" else [1 / ratio for ratio in longer])
    return ratios


def _reason(error: BaseException) -> str:
    """Our own message if one caused the error, else what first went wrong: Hydra wraps what a constructor raises."""
    while not isinstance(error, InputError) and error.__cause__ is not None:
        error = error.__cause__
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {said}".rstrip(": .")
