"""What this machine computes fastest in, and what a run records of it."""

import ctypes
import itertools
import logging
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

from lungdet.errors import InputError

log = logging.getLogger(__name__)

PRECISIONS = ("auto", "32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16")
"""Lightning's names of what is trained in: in its others weights and batch norm would be too coarse, or too slow."""
MEMORY_FORMATS = ("auto", "channels_last", "contiguous_format")

_COMPILING_PAYS = 1_500_000  # images
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's numbers of what mallopt sets


class Arithmetic(NamedTuple):
    """How to compute: Lightning's name of the precision, the layout of feature maps, and why."""

    precision: str
    memory_format: str
    why: str


def fastest(accelerator: str = "auto") -> Arithmetic:
    """What is fastest on the hardware found: bf16 where it is done in hardware, else fp16 on GPUs, else fp32.

    Emulated bf16 is slower than fp32, so emulation does not count. Channels-last is faster for convolutions in every
    precision measured.

    Args:
        accelerator: Lightning's name; `auto` prefers a GPU.
    """
    import torch

    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Arithmetic("bf16-mixed", "channels_last", f"{name} does bf16 in hardware")
        return Arithmetic("16-mixed", "channels_last", f"{name} does fp16 in hardware, not bf16")
    if accelerator in ("auto", "mps", "gpu") and torch.backends.mps.is_available():
        return Arithmetic("32-true", "channels_last", "Apple GPU: fp32")
    capabilities = torch.cpu.get_capabilities()
    native = [name for name in ("amx_bf16", "amx_tile", "avx512_bf16") if capabilities.get(name)]
    if native:
        return Arithmetic("bf16-mixed", "channels_last", f"this processor does bf16 in hardware ({native[0]})")
    return Arithmetic("32-true", "channels_last", "this processor has no bf16 in hardware")


def choose(precision: str, memory_format: str, accelerator: str = "auto") -> Arithmetic:
    """The configured precision and memory format, `auto` being replaced by what is fastest; one log line says so.

    Raises:
        InputError: one that is not known, or fp16 on a processor, for which Lightning would compute bf16.
    """
    for key, choice, choices in (
        ("precision", str(precision), PRECISIONS),
        ("memory_format", memory_format, MEMORY_FORMATS),
    ):
        if choice not in choices:
            raise InputError(f"trainer.{key}={choice}: one of {', '.join(choices)} is needed")
    if not computes(precision, accelerator):
        raise InputError(
            f"trainer.precision={precision}: a processor does not compute fp16; use bf16-mixed, 32-true or auto"
        )
    best = fastest(accelerator)
    chosen = Arithmetic(
        best.precision if precision == "auto" else precision,
        best.memory_format if memory_format == "auto" else memory_format,
        best.why if "auto" in (precision, memory_format) else "as configured",
    )
    log.info("precision %s, %s: %s", chosen.precision, chosen.memory_format.replace("_", " "), chosen.why)
    return chosen


def computes(precision: str, accelerator: str = "auto") -> bool:
    """Whether this machine computes in a precision: fp16 on a GPU alone, for elsewhere Lightning would take bf16."""
    import torch

    on_gpu = accelerator != "cpu" and (torch.cuda.is_available() or torch.backends.mps.is_available())
    return on_gpu or str(precision) not in ("16", "16-mixed")


def compiles(choice: bool | str, images: int, accelerator: str = "auto") -> bool:
    """Whether to compile the convolutional layers: as configured, or `auto`: on a CUDA GPU where it pays.

    Compiling takes about a minute and saves some 50 microseconds an image (H200, the study's backbone, 224 x 224).

    Args:
        choice: True, False or `auto`.
        images: how many will be trained on, over all epochs.
        accelerator: Lightning's name.

    Raises:
        InputError: True, and there is no compiler for torch to use; or another choice.
    """
    import torch

    if choice not in (True, False, "auto"):
        raise InputError(f"trainer.compile={choice}: true, false or auto is needed")

    gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if not choice or (choice == "auto" and (not gpu or images < _COMPILING_PAYS)):
        return False
    named, usual = ("CC", "cc") if gpu else ("CXX", "g++")
    if shutil.which(os.environ.get(named, usual)) is not None:
        return True
    missing = f"torch needs the compiler {usual}, or another that the environment variable {named} names"
    if choice != "auto":
        raise InputError(f"trainer.compile={choice}: {missing}; install it, or leave trainer.compile out")
    log.info("not compiled, which would be faster: %s", missing)
    return False


@contextmanager
def memory_kept() -> Iterator[None]:
    """Within the block the C library keeps what is freed for what is asked for next.

    A training step on a CPU frees a gigabyte or two of feature maps and asks for as much again. By default glibc gives
    large blocks back to the system, which clears and maps every page anew: a fifth of the step, or more. The price is
    memory: at its peak a third more where each batch is as large as the one before, and much more where not. With other
    C libraries nothing changes.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        library.mallopt(_MMAP_MAX, 65_536)  # its defaults
        library.mallopt(_TRIM_THRESHOLD, 128 << 10)
        return_memory()


def return_memory() -> None:
    """Give the system back what `memory_kept` keeps: before a fork, or each process comes to hold a copy of it."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def cores() -> int:
    """How many this process may use: of a machine's a scheduler often gives it some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict:
    """Device, processor, cores and memory (bytes), as JSON-ready values."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "device": gpus[0] if gpus else _processor(),
        "gpus": gpus,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "platform": platform.platform(terse=True),
    }


def memory_in_use(device: "torch.device") -> int:
    """Bytes: on a GPU the peak since it was last reset; on a CPU what this process and its loader workers hold now,
    within `memory_kept` nearly the peak.

    Counted is anonymous memory, and once what is shared of it: resident memory would include the pages of the prepared
    store that happen to be mapped, which cost nothing.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        children = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
        process = _status("self", "RssAnon") + _status("self", "RssShmem")
        return process + sum(_status(pid, "RssAnon") for pid in itertools.chain(*children))
    except OSError:  # not Linux
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status(pid: str, kind: str) -> int:
    """Bytes of one kind of memory, as Linux counts a process's."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:  # it ended meanwhile
        return 0
    return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(kind))


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as info:
            return next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
