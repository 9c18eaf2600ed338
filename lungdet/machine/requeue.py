"""SLURM takes its machines back: the job is queued again, and its command then goes on from the last whole epoch."""

import logging
import os
import signal
import subprocess
from typing import Any

from lungdet.machine import ranks

log = logging.getLogger(__name__)


def on_signal() -> None:
    """Queue the job again when SIGUSR1 comes, as `#SBATCH --signal=SIGUSR1@90` has SLURM send it; then end.

    Of several processes the first alone does; SLURM ends the others. Where the job cannot be queued again, training
    goes on until the time is up. Outside SLURM, and where somebody else answers the signal, nothing is changed.

    Lightning would answer it with a checkpoint from the middle of an epoch, written into the working directory and
    loaded from there by every later run that has none of its own, whatever it trains. It leaves the signal to whoever
    came first.
    """
    if "SLURM_JOB_ID" not in os.environ or signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL:
        return
    process = os.getpid()

    def requeue(*_: Any) -> None:
        # A process that loads images inherits the answer, not the task. Other ranks train on: one that left the first
        # waiting for it on a GPU would keep it from ever coming to this line.
        if os.getpid() != process or ranks.rank():
            return
        answer = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # SLURM's own, to a job that ends already
        if _requeued(_job()):
            raise SystemExit("train.py: SLURM takes the machine back; the job is queued again and will go on")
        signal.signal(signal.SIGTERM, answer)

    signal.signal(signal.SIGUSR1, requeue)


def _requeued(job: str) -> bool:
    try:
        status = subprocess.run(["scontrol", "requeue", job]).returncode
    except OSError as error:  # within a container there may be none
        status = error
    if status:
        log.error("scontrol requeue %s: %s. Once the job has ended, the same command goes on", job, status)
    return not status


def _job() -> str:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
