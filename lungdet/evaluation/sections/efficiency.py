"""What models cost under the same conditions: parameters, FLOPs, speed, latency and memory, measured in turns."""

import gc
import logging
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import OmegaConf

from lungdet import hardware
from lungdet.errors import InputError
from lungdet.evaluation.page.document import Items, Table, Text
from lungdet.evaluation.page.wording import duration, label, number, optional
from lungdet.runs import Run

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)

TURN = 0.05
"""Seconds that a turn of the slowest model lasts at least: fast calls are repeated."""
MOST = 30
"""Rounds of turns, if they fit into the time given."""
STEP = 10.0
"""Seconds that a training step may last; the batch is halved until it does."""
PROBE = 4
"""Images in the step that foretells it."""
WIDE = 0.2
"""A distance of the quartiles above this share of the median is remarked upon."""

MEANING = {
    "flops": "of one image's forward pass: convolutions, matrix products and LSTMs, a multiply-add counted as 2",
    "training_images_per_second": "forward, backward and optimiser step, on a batch already in memory",
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

_KEYS = ("data.image_size", "data.batch_size", "trainer.precision", "trainer.memory_format", "trainer.accelerator")
_TIMED = {
    "training_images_per_second": "training speed",
    "images_per_second": "inference speed",
    "latency_ms": "latency",
}


def measure(runs: Mapping[str, Run]) -> dict:
    """What each model costs on this machine, all at one image size, batch size, precision and memory format.

    These are the first run's; where another run has its own, a remark says so. Weights do not matter for cost: models
    are built from their runs' configurations, and none are downloaded or loaded. Two models of the study's size take
    some 25 s on two quiet cores. On busy ones ratios mislead too: an LSTM's many short steps wait more often for a
    core than few long ones.

    Args:
        runs: one run of each model.

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
        place = _place(wanted, remarks)
    except Exception as error:  # no model's fault; the rest of a report does not depend on it
        log.warning("efficiency is not measured: %s", _reason(error))
        return {"reason": _reason(error)}
    log.info("measuring what %s cost, in turns: half a minute, more for large ones", number(len(runs), "model"))
    turns.models = turns.each(lambda run: _Model(run, place))
    before, began = _cpu_seconds_of_others(), time.perf_counter()
    images = _batch_size(turns, wanted.batch_size, remarks)
    turns.each(lambda model: model.load(images))
    memory = turns.each(_Model.peak_memory)
    seconds = {"training_images_per_second": turns.rounds(_Model.train, within=12.0, fewest=3)}
    turns.each(lambda model: model.network.eval())
    seconds["images_per_second"] = turns.rounds(_Model.infer, within=4.0, fewest=9)
    seconds["latency_ms"] = turns.rounds(_Model.answer, within=3.0, fewest=9)
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
        for quantity in _TIMED:
            each = seconds[quantity][name]
            found[name][quantity] = _spread([1000 * s if quantity == "latency_ms" else images / s for s in each])
        if recorded not in (None, model.parameters):
            remarks.append(
                f"{label(name)} has {model.parameters:,} parameters as built now, and had {recorded:,} when its run "
                "was trained: the code changed since."
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


def section(summary: dict) -> list:
    """Ratios to the first model; a table with a row a quantity and a column a model; the conditions.

    Args:
        summary: `models` as `summary.summarise` makes them, and `efficiency`: what `measure` returned, or None.
    """
    found = summary.get("efficiency") or {"reason": "this report was made without measuring them"}
    measured = found.get("models", {})
    # Models that differ in their training alone cost the same; one of each kind is measured.
    models = {name: one for name, one in summary["models"].items() if name in measured} or summary["models"]
    rows = [["Parameters", *[_parameters(measured.get(name, {}), block) for name, block in models.items()]]]
    blocks, notes = [], []
    if "reason" in found:
        blocks.append(Text(f"Speed, latency and memory side by side are not measured: {found['reason']}."))
    else:
        for title, cell in _ROWS.items():
            of = [measured.get(name, {"reason": ""}) for name in models]
            rows.append([title, *["not measured" if "reason" in one else cell(one) for one in of]])
        lines = [_against(found["against"], name, one["ratios"]) for name, one in measured.items() if "ratios" in one]
        blocks += [Items(lines)] if lines else []
        notes = _notes(found)
    rows += [["Time an epoch", *[_epochs(block, 1) for block in models.values()]]]
    best = [None if block["best_epoch"] is None else block["best_epoch"] + 1 for block in models.values()]
    rows += [["Time to the best epoch", *[_epochs(*each) for each in zip(models.values(), best, strict=True)]]]
    trained_on = sorted({device for block in models.values() for device in block["hardware"]})
    notes.append(f"Times of epochs are those of the runs, reading images included, on {', '.join(trained_on)}; means.")
    return [*blocks, Table(["Cost", *[label(name) for name in models]], rows, 1, notes)]


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


class _Place(NamedTuple):
    """Where and how models are computed."""

    accelerator: str
    precision: str
    memory_format: str
    image_size: int

    def described(self) -> dict:
        """Its part of what `measure` returns."""
        import torch

        known = hardware.describe()
        return {
            "device": known["device" if self.accelerator == "cuda" else "processor"],
            "cores": known["cores"],
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "precision": self.precision,
            "memory_format": self.memory_format,
            "image_size": self.image_size,
        }


def _place(wanted: _Conditions, remarks: list[str]) -> _Place:
    """The hardware and arithmetic that training with this configuration would choose on this machine."""
    import torch

    here = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = "cpu" if wanted.accelerator == "cpu" else here
    if wanted.accelerator not in ("auto", device) and not (wanted.accelerator == "gpu" and device != "cpu"):
        remarks.append(f"Measured on {device}: `trainer.accelerator={wanted.accelerator}` is not on this machine.")
    precision, memory_format, _ = hardware.choose(wanted.precision, wanted.memory_format, device)
    if precision == "16-mixed" and device == "cpu":
        precision = "bf16-mixed"
        remarks.append("Measured in bf16-mixed: `trainer.precision=16-mixed` is for GPUs.")
    return _Place(device, precision, memory_format, wanted.image_size)


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

    def rounds(self, call: Callable[["_Model"], None], within: float, fewest: int) -> dict[str, list[float]]:
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
    turns.each(_Model.train)
    slowest = max(turns.each(lambda model: model.seconds(_Model.train, 1)).values(), default=0.0)
    while images > probe and images * slowest / probe > STEP:
        images = max(probe, images // 2)
    if images < wanted:
        remarks.append(f"Measured on batches of {images} images: the run's {wanted} would take too long here.")
    return images


class _Model:
    """A run's network on the device, with untrained weights, its optimiser and a batch of noise."""

    def __init__(self, run: Run, place: _Place) -> None:
        import torch
        from hydra.utils import instantiate
        from lightning.fabric import Fabric

        config = run.config.model.copy()
        for key, nothing in (("backbone.pretrained", False), ("backbone.weights", None)):
            if OmegaConf.select(config, key):  # timm's: a download, or a file that may have gone
                OmegaConf.update(config, key, nothing)
        for package in ("fabric", "pytorch"):  # they announce the precision, as we did
            logging.getLogger(f"lightning.{package}").setLevel(logging.WARNING)
        self.fabric = Fabric(accelerator=place.accelerator, devices=1, precision=place.precision)
        self.size = place.image_size
        self.network = instantiate(config)
        self.parameters = sum(parameter.numel() for parameter in self.network.parameters())
        self.flops = _flops(self.network, self.size)
        self.network.train().to(memory_format=getattr(torch, place.memory_format))
        self._adam = self.network.configure_optimizers()["optimizer"]
        _, self.optimizer = self.fabric.setup(self.network, self._adam)

    def load(self, images: int) -> None:
        """Put a batch, and its first image alone, on the device."""
        import torch

        generator, labels = torch.Generator().manual_seed(0), len(self.network.labels)
        pixels = torch.randint(0, 256, (images, 1, self.size, self.size), dtype=torch.uint8, generator=generator)
        target = torch.randint(0, 2, (images, labels) if labels > 1 else (images,), generator=generator)
        batch = {
            "image": pixels.float().div_(255).to(next(self.network.parameters()).dtype),
            "length": torch.ones(images, dtype=torch.long),
            "target": target.float(),
        }
        self.batch = self.fabric.to_device(batch)
        self.single = {key: tensor[:1].clone() for key, tensor in self.batch.items()}

    def train(self) -> None:
        """One training step on the batch, as Lightning's trainer makes it."""
        self.optimizer.zero_grad()
        with self.fabric.autocast():
            loss = self.network.training_step(self.batch, 0)
        self.fabric.backward(loss)
        self.optimizer.step()

    def infer(self) -> None:
        """One forward pass of the batch."""
        self._forward(self.batch)

    def answer(self) -> None:
        """One forward pass of a single image, until its answer is there."""
        self._forward(self.single)
        self._wait()

    def seconds(self, call: Callable[["_Model"], None], calls: int) -> float:
        """Seconds a call, the mean over so many in a row."""
        self._wait()
        began = time.perf_counter()
        for _ in range(calls):
            call(self)
        self._wait()
        return (time.perf_counter() - began) / calls

    def peak_memory(self) -> int | None:
        """Bytes that this model holds at the peak of a training step; other models' do not count."""
        import torch

        device = self.fabric.device
        self.optimizer.zero_grad()
        state = [value for of in self._adam.state.values() for value in of.values() if isinstance(value, torch.Tensor)]
        own = [*self.network.parameters(), *self.network.buffers(), *state, *self.batch.values()]
        if device.type == "cpu":
            return _peak_of_tensors(self.train, own)
        if device.type == "cuda":
            others = torch.cuda.memory_allocated(device) - sum(tensor.nbytes for tensor in own)
            torch.cuda.reset_peak_memory_stats(device)
        self.train()
        return hardware.memory_in_use(device) - others if device.type == "cuda" else None

    def _forward(self, batch: dict[str, "Tensor"]) -> None:
        import torch

        with torch.inference_mode(), self.fabric.autocast():
            self.network(batch["image"], batch["length"])

    def _wait(self) -> None:
        """Until the device has done what it was asked to."""
        import torch

        if self.fabric.device.type != "cpu":
            torch.accelerator.synchronize()


def _flops(network: "nn.Module", size: int) -> int:
    """Of one image's forward pass, in inference.

    Counted on a CPU in fp32 without oneDNN, where LSTMs and attention are the matrix products that the counter knows;
    to it, what oneDNN and cuDNN make of them is a single operation worth 0. Gradients are on to keep transformers off
    their fused path, for the same reason.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    network.eval()
    with (
        warnings.catch_warnings(action="ignore", category=UserWarning),  # switching oneDNN off speaks of TF32
        torch.backends.mkldnn.flags(enabled=False),
        sdpa_kernel(SDPBackend.MATH),
        torch.enable_grad(),
        FlopCounterMode(display=False) as counter,
    ):
        network(torch.zeros(1, 1, size, size), torch.ones(1, dtype=torch.long))
    return counter.get_total_flops()


def _peak_of_tensors(step: Callable[[], None], own: Sequence["Tensor"]) -> int:
    """The most bytes of tensors alive at once while `step` runs, `own` included."""
    import weakref

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Alive(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.known, self.now, self.peak = weakref.WeakSet(), 0, 0

        def meet(self, values: Sequence) -> None:
            for value in values:
                if isinstance(value, torch.Tensor) and (storage := value.untyped_storage()) not in self.known:
                    self.known.add(storage)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self.leave, storage.nbytes())
            self.peak = max(self.peak, self.now)

        def leave(self, size: int) -> None:
            self.now -= size

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            made = operation(*args, **(kwargs or {}))
            self.meet(tree_leaves(made))
            return made

    with Alive() as alive:
        alive.meet(own)
        step()
    return alive.peak


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
    for quantity in _TIMED:
        longer = [this / that for this, that in zip(seconds[quantity][name], seconds[quantity][first], strict=True)]
        ratios[quantity] = _spread(longer if quantity == "latency_ms" else [1 / ratio for ratio in longer])
    return ratios


def _reason(error: BaseException) -> str:
    """Our own message if one caused the error, else what first went wrong: Hydra wraps what a constructor raises."""
    while not isinstance(error, InputError) and error.__cause__ is not None:
        error = error.__cause__
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {said}".rstrip(": .")


_ROWS: dict[str, Callable[[dict], str]] = {
    "FLOPs an image, billions": lambda one: f"{one['flops'] / 1e9:.4g}",
    "Training, images/s": lambda one: _quartiles(one["training_images_per_second"], _short),
    "Inference, images/s": lambda one: _quartiles(one["images_per_second"], _short),
    "Latency, one image, ms": lambda one: _quartiles(one["latency_ms"], _short),
    "Peak memory, MiB": lambda one: (
        "unknown" if one["peak_memory_bytes"] is None else f"{one['peak_memory_bytes'] / 2**20:,.0f}"
    ),
}


def _parameters(one: dict, block: dict) -> str:
    return optional(one.get("parameters", block["parameters"]), "{:,.0f}")


def _epochs(block: dict, count: float | None) -> str:
    """So many of a model's epochs, in time."""
    if block["fit_seconds"] is None or not block["epochs"] or count is None:
        return "unknown"
    return duration(block["fit_seconds"] / block["epochs"] * count)


def _against(first: str, name: str, ratios: dict) -> str:
    named = {"parameters": "parameters", "flops": "FLOPs"} | _TIMED | {"peak_memory_bytes": "peak memory"}
    said = []
    for quantity, words in named.items():
        ratio = ratios[quantity]
        if ratio is not None:
            value = _quartiles(ratio, "{:.2f}".format) if quantity in _TIMED else f"{ratio:.2f}"
            said.append(f"{value} times the {words}")
    return f"{label(name)} against {label(first)}: {', '.join(said)}."


def _notes(found: dict) -> list[str]:
    side, rounds = found["image_size"], found["rounds"]
    said = [
        f"Measured in turns in one process on {found['device']}, {number(found['threads'], 'CPU thread')}, torch "
        f"{found['torch']}, {found['precision']}, {found['memory_format'].replace('_', ' ')}, batches of "
        f"{found['batch_size']} images of {side} x {side} pixels already in memory. Medians of "
        f"{rounds['training_images_per_second']} rounds of training, {rounds['images_per_second']} of inference and "
        f"{rounds['latency_ms']} of single images, quartiles in brackets; ratios of speeds and latency are taken round "
        "by round, and one whose quartiles lie on both sides of 1 shows no difference.",
        "FLOPs: one forward pass, a multiply-add counted as 2, in convolutions, matrix products and LSTMs. Peak "
        "memory: of a training step, what is alive at once, without the program itself.",
        *found["remarks"],
        *[
            f"{label(name)} is not measured: {one['reason']}."
            for name, one in found["models"].items()
            if "reason" in one
        ],
    ]
    if not found["quiet"]:
        said.append(
            f"Meanwhile other programs kept {found['others_cores']:.1f} of {found['cores']} cores busy: these speeds "
            "are too low and their ratios mislead. Measure again on a quiet machine."
        )
    timed = [one[quantity] for one in found["models"].values() if "reason" not in one for quantity in _TIMED]
    widest = max((spread["high"] - spread["low"]) / spread["median"] for spread in timed)
    if widest > WIDE:
        said.append(f"Quartiles lie up to {100 * widest:.0f} % apart: the machine was not quiet.")
    return said


def _quartiles(spread: dict, form: Callable[[float], str]) -> str:
    return f"{form(spread['median'])} ({form(spread['low'])}–{form(spread['high'])})"


def _short(value: float) -> str:
    """Three digits, or whole."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
