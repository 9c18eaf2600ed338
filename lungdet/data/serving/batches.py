"""What training receives: batches of radiographs on the device that computes, made by worker processes or not."""

import mmap
import multiprocessing
import sys
import weakref
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from math import prod
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lungdet.data.serving.loading import Draws, InOrder, Radiographs
from lungdet.data.store.images import opencv_on_one_thread
from lungdet.errors import InputError
from lungdet.machine import hardware

_TOGETHER = 128 * 224**2  # pixels that a worker is asked for at once: asking and telling take as long as ten images
_AHEAD = 2  # times that each worker is asked in advance
_HELD = 2  # batches that whoever reads them is expected to hold at once


class Batches:
    """The batches of an epoch, in `order`; one may go through them again and again, as through a `DataLoader`.

    Args:
        dataset: `Radiographs`, or `Warps` where `images` is given.
        order: the draws of each batch; whoever starts an epoch may tell it which one (`sampler.set_epoch`).
        workers: processes that make batches; 0 makes them here.
        device: where finished batches lie.
        images: the store (N, H, W) uint8, on the device, see `lungdet.data.serving.device.load`.
    """

    def __init__(
        self,
        dataset: Radiographs,
        order: InOrder,
        workers: int = 0,
        device: torch.device | None = None,
        images: Tensor | None = None,
    ) -> None:
        self.sampler, self.batch_sampler = order, None  # Lightning sets the epoch, as of a `DataLoader`
        self._dataset, self._images = dataset, images
        self._device = device if device is not None else torch.device("cpu")
        # Floats take a core less time to write than to copy, but four times the bytes of a way to a GPU.
        pixel = np.float32 if self._device.type == "cpu" else np.uint8
        together = max(1, _TOGETHER // (order.batch_size * prod(dataset.stored.shape[1:]))) if workers else 1
        places = (_AHEAD * workers + 1) * together + _HELD if workers and images is None else 0
        self._buffers = SharedBuffers(dataset, order, together, places, pixel)
        self._loader = DataLoader(
            self._buffers,
            batch_size=None,  # `order` makes the batches
            sampler=self._buffers,
            num_workers=workers,
            collate_fn=_as_is,
            worker_init_fn=_one_thread,
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,  # they share the buffers
            prefetch_factor=_AHEAD if workers else None,
            persistent_workers=workers > 0,
        )

    def __len__(self) -> int:
        return len(self.sampler)

    @property
    def _iterator(self) -> object:
        """A `DataLoader`'s: Lightning ends workers through this attribute alone, and offers nothing public for it."""
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, iterator: object) -> None:
        self._loader._iterator = iterator

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Batches as of `Radiographs`, but tensors on the device, and `image` (S, 1, H, W) float32 in [0, 1].

        Raises:
            InputError: the system has no room for worker processes.
        """
        if self._loader.num_workers and self._loader._iterator is None:
            hardware.return_memory()
            _require_semaphores(self._loader.num_workers)
        with opencv_on_one_thread():  # as workers are forked: in them OpenCV would wait for threads that are not there
            requests = iter(self._loader)
        for arrays in chain.from_iterable(requests):
            pixels = arrays.pop("image", None)
            batch = {name: self._on_device(torch.from_numpy(array)) for name, array in arrays.items()}
            if pixels is None:
                image = self._dataset.image(self._images, batch)
            else:
                image = self._on_device(
                    self._buffers.read(pixels) if isinstance(pixels, Slot) else torch.from_numpy(pixels)
                )
            yield {"image": image if image.is_floating_point() else image.float().div_(255), **batch}

    def _on_device(self, tensor: Tensor) -> Tensor:
        """The tensor on the device; on a CUDA GPU soon, without waiting for what it has to do before."""
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor if self._device.type == "cpu" else tensor.to(self._device)


class Slot(NamedTuple):
    """Sent in place of images: the buffer that holds them, and their shape."""

    place: int
    shape: tuple[int, ...]


class SharedBuffers:
    """Places for batches in memory that the main process shares with the workers that it forks.

    Memory of its own for each batch would be mapped, cleared and unmapped in two processes, which takes longer than
    making the batch. A worker leaves its images in a place, the main process hands that out as it is and has it back
    when nobody holds the batch any more. Where there is no place (someone keeps many batches, or workers are not
    forked), images are sent.

    It is its own sampler: which place a batch will be left in is decided when it is asked for.

    Args:
        dataset: whose batches they are, uint8.
        order: their draws.
        together: batches that are asked for at once.
        places: how many; without any, images are sent.
        pixel: what the images are left as: uint8 as they are, or float32 in [0, 1].
    """

    def __init__(self, dataset: Radiographs, order: InOrder, together: int, places: int, pixel: type) -> None:
        self._dataset, self._order, self._together = dataset, order, together
        self._places = np.empty((0, 0), pixel)
        if places:
            size = order.batch_size * dataset.series.longest * prod(dataset.stored.shape[1:])
            # Not a file in /dev/shm, as torch's: a container's often holds 64 MiB. Pages never written take no memory.
            memory = mmap.mmap(-1, places * size * np.dtype(pixel).itemsize)
            self._places = np.frombuffer(memory, pixel).reshape(places, size)
        self._lent: set[int] = set()
        self._free: list[int] = []

    def __len__(self) -> int:
        return -(-len(self._order) // self._together)

    def __iter__(self) -> Iterator[list[tuple[int | None, Draws]]]:
        """What workers are asked for at once: draws of some batches, and in which places to leave them."""
        # An epoch that was broken off took places that nobody came to hold; its workers are through with them.
        self._free = sorted(set(range(len(self._places))) - self._lent)
        order = iter(self._order)
        while batches := list(islice(order, self._together)):
            # The place that was freed last: it is still cached.
            yield [(self._free.pop() if self._free else None, draws) for draws in batches]

    def __getitem__(self, requests: list[tuple[int | None, Draws]]) -> list[dict]:
        """The batches, in a worker."""
        return [self._batch(place, draws) for place, draws in requests]

    def _batch(self, place: int | None, draws: Draws) -> dict:
        """A batch, its images left in their place."""
        if place is None or not len(self._places):
            return self._dataset[draws]
        batch = self._dataset.batch(draws, partial(self._at, place))
        return {**batch, "image": Slot(place, batch["image"].shape)}

    def read(self, slot: Slot) -> Tensor:
        """The images, in the main process; their place is free when the last tensor of their memory is gone."""
        images = self._at(*slot)
        self._lent.add(slot.place)
        weakref.finalize(images, self._returned, slot.place)  # torch keeps this very array as long as the memory
        return torch.from_numpy(images)

    def _at(self, place: int, shape: tuple[int, ...]) -> np.ndarray:
        return self._places[place, : prod(shape)].reshape(shape)

    def _returned(self, place: int) -> None:
        self._lent.discard(place)
        self._free.append(place)

    def __getstate__(self) -> dict:
        # A worker that is not forked has no part in the memory.
        return {**self.__dict__, "_places": self._places[:0]}


def _require_semaphores(workers: int) -> None:
    """Raise where the system has no room for the workers' queues; torch would end in tracebacks, half of them started.

    Each semaphore is a file in /dev/shm: three to a queue, of which each worker has one, and eight for all together.
    """
    try:
        _ = [multiprocessing.Lock() for _ in range(3 * workers + 8)]
    except OSError as error:
        raise InputError(
            f"data.num_workers={workers}: /dev/shm has no room for the workers' semaphores ({error}). Let it be "
            "written and have some 200 kB free (docker run --shm-size=64m), or set data.num_workers=0"
        ) from error


def _as_is(batch: dict) -> dict:
    """The dataset makes whole batches, and as arrays: a tensor would cost a file descriptor on its way."""
    return batch


def _one_thread(_: int) -> None:
    """A worker that was not forked has OpenCV's threads anew."""
    if cv2.getNumThreads() != 1:
        cv2.setNumThreads(1)
