"""What is chosen for the hardware at hand."""

import shutil

import pytest
import torch

from lungdet.errors import InputError
from lungdet.machine import hardware


def test_compiling_is_left_to_cuda_gpus_and_long_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    many, few = 2_000_000, 1_000_000
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    assert not hardware.compiles("auto", many, "cpu")
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "g++" else None)
    assert hardware.compiles(True, few, "cpu")
    monkeypatch.setenv("CXX", "clang++")
    with pytest.raises(InputError, match=r"trainer.compile=True: torch needs the compiler g\+\+"):
        hardware.compiles(True, few, "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/cc")
    assert hardware.compiles("auto", many)
    assert not hardware.compiles("auto", few)
    assert not hardware.compiles(False, many)
    assert not hardware.compiles("auto", many, "cpu")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert not hardware.compiles("auto", many)
