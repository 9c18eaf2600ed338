"""What one process writes another leaves alone, until it ends, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lungdet.errors import InputError
from lungdet.machine.locking import alone

HOLDER = """
import sys, time
from pathlib import Path
from lungdet.machine.locking import alone
with alone(Path("x"), Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_ends_or_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "out" / ".lock"
    first = subprocess.Popen([sys.executable, "-c", HOLDER, lock], stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "held\n"
    with (
        pytest.raises(InputError, match=r"out=list\.csv: another process is writing it"),
        alone(Path("list.csv"), lock),
    ):
        pass
    assert lock.exists()
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    with alone(Path("list.csv"), lock):
        (lock.parent / "list.csv").touch()
    assert [path.name for path in lock.parent.iterdir()] == ["list.csv"]


def test_a_folder_for_the_lock_alone_goes_again_an_empty_one_stays_and_no_link_is_followed(tmp_path: Path) -> None:
    with alone(Path("x"), tmp_path / "out" / ".lock"):
        pass
    assert [*tmp_path.iterdir()] == []
    with alone(Path("x"), tmp_path / ".lock"):
        pass
    assert tmp_path.is_dir()  # the user's own, though it is empty
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"), alone(Path("x"), tmp_path / ".lock"):
        pass
    assert not (tmp_path / "elsewhere").exists()
