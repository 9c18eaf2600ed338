"""One process for each device that trains a run: how many a configuration asks for, started where none are there.

`trainer.devices=2` starts them here, on one machine. Under torchrun and under SLURM (srun) they are there already, on
one machine or several, and each of them runs the whole command.
"""

import logging
import logging.config
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from lungdet.errors import InputError, plain_errors
from lungdet.machine import ranks
from lungdet.machine.signals import Interrupted, raising

T = TypeVar("T")

PATIENCE = 10  # seconds that a process other than the first keeps its error back
# What torch's launcher answers from its first use on, and leaves so: a later job in this process must be stoppable.
_ANSWERED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def processes(trainer: DictConfig) -> int:
    """How many processes a trainer's configuration asks for, one a device.

    Raises:
        InputError: several machines, which no process can start by itself; others than were started.
    """
    machines = trainer.num_nodes
    if machines != 1 and ranks.count() == 1:
        raise InputError(
            f"trainer.num_nodes={machines}: several machines are started from outside, on each of them with: "
            f"torchrun --nnodes={machines} --nproc-per-node=GPUS --rdzv-backend=c10d "
            "--rdzv-endpoint=FIRST_MACHINE:29400 train.py .. , or by SLURM (hydra/launcher=submitit_slurm)"
        )
    devices = _devices(trainer)
    started = ranks.count_here(), ranks.count() // ranks.count_here()
    if ranks.count() > 1 and (devices, machines) != started:  # else each trains alone, on its share of the images
        raise InputError(
            f"torchrun or SLURM has started {started[0]} processes on each of {started[1]} machines, the trainer is "
            f"told of {devices} on {machines}: give trainer.devices={started[0]} trainer.num_nodes={started[1]}"
        )
    return devices


def launch(function: Callable[..., T], *args: Any, processes: int) -> T:
    """Call a function in so many new processes at once, each of which imports it; what rank 0 returns.

    Raises:
        Interrupted: a signal came; the processes were ended.
        InputError: one of the processes failed and has said why; the others were ended.
        RuntimeError: likewise, but with an error that is not the user's; its traceback is in the message.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed.elastic", "torch.multiprocessing"):  # the process that failed says why
        logging.getLogger(name).setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        run_id=str(os.getpid()),
        max_restarts=0,
    )
    answers = {number: signal.getsignal(number) for number in _ANSWERED}
    try:
        return elastic_launch(config, _call)(function, args, _logging())[0]
    except SignalException as error:  # to Hydra a job that failed, after which it would start the next one
        raise Interrupted(128 + error.sigval) from None
    except ChildFailedError as error:
        first, failure = error.get_first_failure()
        failed = f"process {first} of {processes} ended with status {failure.exitcode}"
        if isinstance(failure.message, dict):
            raise RuntimeError(f"{failed}: {failure.message['extraInfo']['py_callstack']}") from None
        raise InputError(f"{failed}; why, if it could tell, stands above") from None
    finally:
        os.environ.pop("TORCHELASTIC_SIGNALS_TO_HANDLE", None)
        if threading.current_thread() is threading.main_thread():
            for number, answer in answers.items():
                if answer is not None:  # not Python's to set
                    signal.signal(number, answer)


def _devices(trainer: DictConfig) -> int:
    devices = trainer.devices
    if str(devices) in ("auto", "-1"):
        if ranks.count() > 1:
            return ranks.count_here()
        import torch

        on_gpus = trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        return torch.cuda.device_count() if on_gpus else 1
    if str(devices).isdigit():
        return int(devices)
    return len(devices.split(",") if isinstance(devices, str) else devices)  # some by their numbers


def _call(function: Callable[..., T], args: tuple, log_settings: dict | None) -> T:
    if log_settings is not None:
        logging.config.dictConfig(log_settings)
        ranks.quieten()
    import torch.distributed

    ranks.join()
    try:
        with raising(), plain_errors():
            return function(*args)
    except Interrupted:
        raise
    except (Exception, SystemExit):
        if ranks.rank():  # what fails alike in all of them is told by the first, and the others are ended
            time.sleep(PATIENCE)
        raise
    finally:
        torch.distributed.destroy_process_group()


def _logging() -> dict | None:
    """How Hydra logs, for the new processes to do alike."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return None
    return OmegaConf.to_container(HydraConfig.get().job_logging, resolve=True)
