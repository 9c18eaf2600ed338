"""Several processes that train one run, a device each: which of them this is, and what they agree on.

`lungdet.machine.launching` has started them, or torchrun, or SLURM (srun). Rank 0 alone writes.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from lungdet.errors import InputError

T = TypeVar("T")


def rank() -> int:
    """Which of the processes this is; 0 where it is alone."""
    return int(os.environ["RANK"] if _torchrun() else os.environ["SLURM_PROCID"] if _srun() else 0)


def count() -> int:
    """How many processes there are, on all machines."""
    return int(os.environ["WORLD_SIZE"] if _torchrun() else os.environ["SLURM_NTASKS"] if _srun() else 1)


def count_here() -> int:
    """How many of them share this machine's cores."""
    if _torchrun():
        return int(os.environ["LOCAL_WORLD_SIZE"])
    return max(1, count() // int(os.environ.get("SLURM_NNODES", 1))) if _srun() else 1


def join() -> None:
    """Meet the other processes, if there are any and they have not met yet."""
    import torch.distributed

    if count() == 1 or torch.distributed.is_initialized():
        return
    if not _torchrun():
        from lightning.fabric.plugins.environments import SLURMEnvironment

        slurm = SLURMEnvironment()
        os.environ.setdefault("MASTER_ADDR", slurm.main_address)
        os.environ.setdefault("MASTER_PORT", str(slurm.main_port))
    # No backend is named: gloo for what lies in host memory, nccl on GPUs. Lightning takes the group as it is.
    torch.distributed.init_process_group(rank=rank(), world_size=count())


def quieten() -> None:
    """Keep all but rank 0 from logging, errors excepted, once logging is set up."""
    if rank():
        root = logging.getLogger()
        root.setLevel(logging.ERROR)
        for handler in [handler for handler in root.handlers if isinstance(handler, logging.FileHandler)]:
            root.removeHandler(handler)


def agreed(value: T) -> T:
    """Rank 0's value, on every rank."""
    if count() == 1:
        return value
    import torch.distributed

    join()
    values = [value]
    torch.distributed.broadcast_object_list(values)
    return values[0]


def gathered(value: T) -> list[T]:
    """Every rank's value, by rank."""
    if count() == 1:
        return [value]
    import torch.distributed

    join()
    values: list[T] = [value] * count()
    torch.distributed.all_gather_object(values, value)
    return values


@contextmanager
def one_first() -> Iterator[None]:
    """Let rank 0 do what the block does before the others, who then find it done.

    Raises:
        InputError: on the others, where rank 0 failed.
    """
    if count() == 1:
        yield
        return
    import torch.distributed

    join()
    # A group of its own, since nobody knows how long rank 0 takes: decoding a dataset may be hours.
    group = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=7))
    success = [False]
    if rank():
        torch.distributed.broadcast_object_list(success, group=group)
        if not success[0]:
            raise InputError("the first process failed, and says why")
        yield
        return
    try:
        yield
        success = [True]
    finally:
        torch.distributed.broadcast_object_list(success, group=group)


def environment_of_one() -> dict[str, str]:
    """The environment variables for a process that is to know nothing of the others."""
    slurm, rendezvous = ("SLURM_NTASKS", "SLURM_PROCID"), ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")
    group = (*slurm, *rendezvous, "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK")
    return {
        name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC_") and name not in group
    }


def _torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _srun() -> bool:
    # As Lightning sees it: a shell within an allocation is not one of its tasks.
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    return {"SLURM_NTASKS", "SLURM_PROCID"} <= os.environ.keys() and not interactive
