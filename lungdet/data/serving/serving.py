"""Serving: how prepared radiographs become batches, as the keys `data.*` say it."""

import os
from dataclasses import dataclass

from lungdet.data.augment import Augmentation
from lungdet.data.serving.device import LOADERS
from lungdet.errors import InputError, require_whole
from lungdet.findings import TASKS
from lungdet.machine import hardware, ranks

SAMPLERS: tuple[str, ...] = ("uniform", "balanced")


@dataclass(frozen=True)
class Serving:
    """What is in a batch, in which order, and who makes it.

    Attributes:
        visits: a case is the patient's last so many images, up to and including the one that is classified.
        batch_size: images a step on each device.
        num_workers: loader processes; None takes one a core but one, eight at most, the cores being shared out where
            several devices train.
        loader: where batches are made, of `lungdet.data.serving.device.LOADERS`.
        sampler: `uniform` takes each training image once an epoch; `balanced` draws as many from each source and
            class, rare ones several times.
        task: what the targets are, of `lungdet.findings.TASKS`.
        augmentation: for training images only.
        seed: of the order and the augmentation.

    Raises:
        InputError: a value that makes no sense; the message names its key.
    """

    visits: int = 1
    batch_size: int = 32
    num_workers: int | None = None
    loader: str = "auto"
    sampler: str = "uniform"
    task: str = "abnormal"
    augmentation: Augmentation | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_whole("data.visits", self.visits, 1)
        require_whole("data.batch_size", self.batch_size, 1)
        if self.num_workers is not None:
            require_whole("data.num_workers", self.num_workers, 0)
        for key, choices in (("data.loader", LOADERS), ("data.sampler", SAMPLERS), ("task", TASKS)):
            if (choice := getattr(self, key.removeprefix("data."))) not in choices:
                raise InputError(f"{key}={choice}: one of {', '.join(choices)} is needed")

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of the manifest that are predicted."""
        return TASKS[self.task]

    @property
    def workers(self) -> int:
        """Loader processes of this device."""
        if self.num_workers is not None:
            return self.num_workers
        cores = min(hardware.cores(), (os.cpu_count() or 1) // ranks.count_here())
        return min(8, max(0, cores - 1))
