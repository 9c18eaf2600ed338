"""Network: one run's model on the device, its optimiser and a batch of noise, and what a step of it takes."""

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from omegaconf import OmegaConf

from lungdet.instantiation import instantiate
from lungdet.machine import hardware
from lungdet.runs.folder import Run

if TYPE_CHECKING:
    from torch import Tensor, nn


class Place(NamedTuple):
    """Where and how models are computed."""

    accelerator: str
    precision: str
    memory_format: str
    image_size: int

    def described(self) -> dict:
        """Its part of what `costs.measure` returns."""
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


def choose(accelerator: str, precision: str, memory_format: str, image_size: int) -> tuple[Place, list[str]]:
    """Where and how training with these settings of `trainer` and `data` would compute on this machine.

    Remarks tell what is not as they say.
    """
    import torch

    remarks = []
    fastest = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = "cpu" if accelerator == "cpu" else fastest
    if accelerator not in ("auto", device) and not (accelerator == "gpu" and device != "cpu"):
        remarks.append(f"Measured on {device}: `trainer.accelerator={accelerator}` is not on this machine.")
    computed = precision if hardware.computes(precision, device) else "auto"
    arithmetic = hardware.choose(computed, memory_format, device)
    if computed != precision:
        remarks.append(f"Measured in {arithmetic.precision}: `trainer.precision={precision}` is for GPUs.")
    return Place(device, arithmetic.precision, arithmetic.memory_format, image_size), remarks


class Network:
    """A run's network on the device, its weights untrained, with their average, its optimiser and a batch of noise."""

    def __init__(self, run: Run, place: Place, trust: Sequence[str] = ()) -> None:
        import torch
        from lightning.fabric import Fabric

        from lungdet.models.averaging import averaged
        from lungdet.models.backbone import untrained

        for package in ("fabric", "pytorch"):  # they announce the precision, as we did
            logging.getLogger(f"lightning.{package}").setLevel(logging.WARNING)
        self.fabric = Fabric(accelerator=place.accelerator, devices=1, precision=place.precision)
        self.size = place.image_size
        optimizer = instantiate(f"{run.folder}: optimizer", run.config.optimizer, trust)
        self.network = instantiate(f"{run.folder}: model", untrained(run.config.model), trust, optimizer=optimizer)
        self.parameters = sum(parameter.numel() for parameter in self.network.parameters())
        self.flops = flops(self.network, self.size)
        self.network.train().to(memory_format=getattr(torch, place.memory_format))
        self._plain = self.network.build_optimizer()
        _, self.optimizer = self.fabric.setup(self.network, self._plain)
        self.averaging = OmegaConf.select(run.config, "trainer.averaging")
        self._weights = {} if self.averaging is None else averaged(self.network)
        self._average = {name: value.clone() for name, value in self._weights.items()}

    def load(self, images: int) -> None:
        """Put a batch, and its first image alone, on the device."""
        import torch

        generator, labels = torch.Generator().manual_seed(0), len(self.network.labels)
        pixels = torch.randint(0, 256, (images, 1, self.size, self.size), dtype=torch.uint8, generator=generator)
        target = torch.randint(0, 2, (images, labels) if labels > 1 else (images,), generator=generator)
        batch = {
            "image": pixels.float().div_(255).to(next(self.network.parameters()).dtype),
            "length": torch.ones(images, dtype=torch.long),
            "when": torch.zeros(images, 2),
            "target": target.float(),
            "case": torch.arange(images),
        }
        self.batch = self.fabric.to_device(batch)
        self.single = {key: tensor[:1].clone() for key, tensor in self.batch.items()}

    def train(self) -> None:
        """One training step on the batch, as Lightning's trainer makes it, and the average that follows it."""
        from lungdet.models.averaging import update

        self.optimizer.zero_grad()
        with self.fabric.autocast():
            loss = self.network.training_step(self.batch, 0)
        self.fabric.backward(loss)
        self.optimizer.step()
        if self._average:
            update(self._average, self._weights, 1 - self.averaging)

    def infer(self) -> None:
        """One forward pass of the batch."""
        self._forward(self.batch)

    def answer(self) -> None:
        """One forward pass of a single image, until its answer is there."""
        self._forward(self.single)
        self._wait()

    def seconds(self, call: Callable[["Network"], None], calls: int) -> float:
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
        moments = [value for state in self._plain.state.values() for value in state.values() if torch.is_tensor(value)]
        weights = [*self.network.parameters(), *self.network.buffers(), *self._average.values()]
        held = [*weights, *moments, *self.batch.values()]
        if device.type == "cpu":
            return peak_of_tensors(self.train, held)
        if device.type != "cuda":
            return None
        elsewhere = torch.cuda.memory_allocated(device) - sum(tensor.nbytes for tensor in held)
        torch.cuda.reset_peak_memory_stats(device)
        self.train()
        return hardware.memory_in_use(device) - elsewhere

    def _forward(self, batch: dict[str, "Tensor"]) -> None:
        import torch

        with torch.inference_mode(), self.fabric.autocast():
            self.network.logits(batch)

    def _wait(self) -> None:
        """Until the device has done what it was asked to."""
        import torch

        if self.fabric.device.type != "cpu":
            torch.accelerator.synchronize()


def flops(network: "nn.Module", size: int) -> int:
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
        count = torch.ones(1, dtype=torch.long)
        image, when = torch.zeros(1, 1, size, size), torch.zeros(1, 2)
        network.logits({"image": image, "length": count, "when": when, "case": count})
    return counter.get_total_flops()


def peak_of_tensors(step: Callable[[], None], held: Sequence["Tensor"]) -> int:
    """The most bytes of tensors alive at once while `step` runs, those `held` before included.

    Nothing public counts this on a CPU: torch's profiler gives what each operation took and returned, no peak.
    """
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
            result = operation(*args, **(kwargs or {}))
            self.meet(tree_leaves(result))
            return result

    with Alive() as alive:
        alive.meet(held)
        step()
    return alive.peak
