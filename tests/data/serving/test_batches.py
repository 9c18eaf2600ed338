"""Batches arrive finished, whatever made them, and nobody's batch is overwritten by a later one."""

import errno
import gc
import multiprocessing
import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.combined_loader import CombinedLoader

from lungdet.data.augment import Augmentation
from lungdet.data.serving.batches import Batches, SharedBuffers, Slot
from lungdet.data.serving.loading import InOrder, Radiographs
from lungdet.errors import InputError
from tests.data.serving.patients import manifest


@pytest.fixture
def radiographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Radiographs:
    """64 images in which every grey occurs, of which workers are asked for eight at once."""
    monkeypatch.setattr("lungdet.data.serving.batches._TOGETHER", 8 * 24 * 40)
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (64, 24, 40), np.uint8))
    return Radiographs(tmp_path / "images.npy", manifest(64), ["abnormal"], visits=2)


def finished(data: Radiographs, rows: torch.Tensor) -> torch.Tensor:
    """The images of a batch of these rows, as they should be."""
    return torch.from_numpy(data.stored[data.series.of(rows.numpy())])[:, None].float() / 255


@pytest.mark.parametrize("workers", [0, 2])
def test_images_are_the_stores_as_floats_exactly(radiographs: Radiographs, workers: int) -> None:
    batches = Batches(radiographs, InOrder(np.arange(64), 6, shuffle=True), workers)
    for epoch in range(3):
        batches.sampler.set_epoch(epoch)
        rows = []
        for batch in batches:
            assert batch["image"].dtype == torch.float32
            assert torch.equal(batch["image"], finished(radiographs, batch["row"]))
            rows += batch["row"].tolist()
        assert sorted(rows) == list(range(64))
        assert len(batches) == 11
    assert np.unique(radiographs.stored).tolist() == list(range(256))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])  # a /dev/shm of 64 kB, one that is read-only
def test_a_system_without_room_for_workers_is_told_to_do_without(
    radiographs: Radiographs, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", refused)
    batches = Batches(radiographs, InOrder(np.arange(64), 6, shuffle=True), 2)
    with pytest.raises(InputError, match=r"data\.num_workers=2.*/dev/shm.*or set data\.num_workers=0"):
        next(iter(batches))


def test_batches_that_are_kept_stay_as_they_were(radiographs: Radiographs) -> None:
    batches = Batches(radiographs, InOrder(np.arange(64), 4, shuffle=True), 2)
    for _ in range(2):
        kept = list(batches)  # more than there are places
        assert all(torch.equal(batch["image"], finished(radiographs, batch["row"])) for batch in kept)
        view = kept[0]["image"][2:].permute(2, 3, 0, 1)
        expected = view.clone()
        del kept
        gc.collect()
        for batch in batches:  # the view keeps its place
            batch["image"].zero_()
        assert torch.equal(view, expected)


def test_places_come_back_and_an_epoch_may_be_broken_off(radiographs: Radiographs) -> None:
    batches = Batches(radiographs, InOrder(np.arange(64), 4, shuffle=True), 2)
    for stop in (1, 3, 5, 1, 2, 16):
        for i, batch in enumerate(batches, 1):
            assert torch.equal(batch["image"], finished(radiographs, batch["row"]))
            if i == stop:
                break
    del batch
    gc.collect()
    assert not batches._buffers._lent
    places = [place for requests in batches._buffers for place, _ in requests]
    assert sorted(places[:12]) == list(range(12))  # every place once
    assert places[12:] == [None] * 4


@pytest.mark.parametrize("pythons", ["fork", "forkserver"])
def test_no_image_is_sent_while_batches_are_let_go(
    radiographs: Radiographs, monkeypatch: pytest.MonkeyPatch, pythons: str
) -> None:
    monkeypatch.setattr(
        multiprocessing.context._default_context, "_actual_context", multiprocessing.get_context(pythons)
    )
    places, read = [], SharedBuffers.read
    monkeypatch.setattr(SharedBuffers, "read", lambda buffers, slot: places.append(slot.place) or read(buffers, slot))
    for batch in Batches(radiographs, InOrder(np.arange(64), 4, shuffle=True), 2):
        assert torch.equal(batch["image"], finished(radiographs, batch["row"]))
    assert len(places) == 16  # in 12 places


def sent(data: Radiographs, pixel: type, place: int | None = 0, spawned: bool = False) -> tuple[SharedBuffers, dict]:
    buffers = SharedBuffers(data, InOrder(np.arange(64), 8, shuffle=False), 2, 3, pixel)
    in_worker = pickle.loads(pickle.dumps(buffers)) if spawned else buffers
    first, _ = next(iter(buffers))
    return buffers, in_worker[[(place, first[1])]][0]


def test_what_crosses_to_the_main_process_is_no_pixel_or_eight_bits_of_it(radiographs: Radiographs) -> None:
    for pixel in (np.float32, np.uint8):
        buffers, batch = sent(radiographs, pixel)
        assert isinstance(batch["image"], Slot)
        assert len(pickle.dumps(batch)) < 2000
        image = buffers.read(batch["image"])
        expected = finished(radiographs, torch.from_numpy(batch["row"]))
        assert torch.equal(image if pixel is np.float32 else image.float() / 255, expected)
        for other in ({"place": None}, {"spawned": True}):
            image = sent(radiographs, pixel, **other)[1]["image"]
            assert image.dtype == np.uint8
            assert torch.equal(torch.from_numpy(image).float() / 255, expected)


def test_for_a_gpu_images_are_left_as_they_are(radiographs: Radiographs) -> None:
    order = InOrder(np.arange(64), 8, shuffle=False)
    for device, pixel in (("cuda:0", np.uint8), ("cpu", np.float32)):
        assert Batches(radiographs, order, 1, torch.device(device))._buffers._places.dtype == pixel


@pytest.mark.slow  # they import all that this process did
def test_workers_that_are_not_forked_send_images(radiographs: Radiographs) -> None:
    batches = Batches(radiographs, InOrder(np.arange(64), 8, shuffle=False), 1)
    batches._loader.multiprocessing_context = "spawn"
    for batch in batches:
        assert torch.equal(batch["image"], finished(radiographs, batch["row"]))


def test_large_images_are_asked_for_one_batch_at_a_time(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((64, 1024, 1024), np.uint8))
    data = Radiographs(tmp_path / "images.npy", manifest(64), ["abnormal"])
    places = Batches(data, InOrder(np.arange(64), 8, shuffle=False), 8)._buffers._places
    assert places.nbytes < 700 << 20  # a loader of torch's holds as much in batches made in advance


def test_lightning_ends_the_workers(radiographs: Radiographs) -> None:
    batches = Batches(radiographs, InOrder(np.arange(64), 8, shuffle=False), 2)
    for _ in range(2):
        loader = CombinedLoader(batches)
        assert len([batch for batch, _, _ in loader]) == 8
        workers = list(batches._iterator._workers)
        assert all(worker.is_alive() for worker in workers)
        loader.reset()
        for worker in workers:
            worker.join(600)
            assert not worker.is_alive()


def test_workers_use_one_thread_of_opencv(radiographs: Radiographs) -> None:
    threads = multiprocessing.Value("i", -1)
    radiographs.degradation = lambda images, _: setattr(threads, "value", cv2.getNumThreads()) or images
    before = cv2.getNumThreads()
    list(Batches(radiographs, InOrder(np.arange(64), 8, shuffle=False), 1))
    assert threads.value == 1
    assert cv2.getNumThreads() == before


def test_a_dataset_takes_few_bytes_an_image_and_no_python_object(tmp_path: Path) -> None:
    """Workers count references to objects, and so come to own a copy of the memory that these lie in."""
    images = 20_000
    data = Radiographs(tmp_path / "images.npy", manifest(images), ["abnormal"], augmentation=Augmentation(shift=0.1))
    assert len(pickle.dumps(data)) < 100 * images
    arrays = [value for part in (data, data.series) for value in vars(part).values() if hasattr(value, "dtype")]
    assert len(arrays) >= 7
    assert all(isinstance(array, np.ndarray) and array.dtype != object for array in arrays)
