"""Memory that a training step frees is kept for the next one, and returned where someone would pay for it."""

import ctypes
import mmap
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from lungdet.data.serving.batches import Batches
from lungdet.data.serving.loading import InOrder, Radiographs
from lungdet.machine import hardware
from tests.data.serving.patients import manifest

BLOCK = 200 << 20  # bytes

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc's")


def used_and_freed() -> int:
    """Page faults of writing to a block of memory; not a tensor: glibc before 2.38 fits aligned ones only by chance."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"1" * BLOCK
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def in_use() -> int:
    return hardware.memory_in_use(torch.device("cpu"))


def test_a_block_that_was_freed_costs_no_page_fault_the_next_time() -> None:
    used_and_freed()
    usual = used_and_freed()
    with hardware.memory_kept():
        used_and_freed()
        assert used_and_freed() < usual / 5
    assert used_and_freed() > usual / 2


def test_memory_shared_with_workers_is_counted_and_files_are_not(tmp_path: Path) -> None:
    before = in_use()
    shared = mmap.mmap(-1, BLOCK)
    shared.write(b"1" * BLOCK)
    assert in_use() > before + 0.9 * BLOCK
    shared.close()
    (tmp_path / "file").write_bytes(b"1" * BLOCK)
    assert np.memmap(tmp_path / "file", np.uint8, "r").sum() > 0
    assert in_use() < before + 0.1 * BLOCK


def test_what_was_kept_is_returned_at_the_end_even_of_a_failure() -> None:
    before = in_use()

    @hardware.memory_kept()
    def failing() -> None:
        used_and_freed()
        assert in_use() > before + 0.9 * BLOCK
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        failing()
    assert in_use() < before + 0.2 * BLOCK


def test_workers_do_not_come_to_hold_what_was_kept(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((64, 24, 40), np.uint8))
    data = Radiographs(tmp_path / "images.npy", manifest(64), ["abnormal"])
    with hardware.memory_kept():
        used_and_freed()
        before = in_use()
        loader = Batches(data, InOrder(np.arange(64), 8, shuffle=False), workers=2)
        list(loader)
        alone = hardware._status("self", "RssAnon")
        assert alone < before - 0.8 * BLOCK
        assert in_use() < 3 * alone + 0.5 * BLOCK  # else twice a block more
