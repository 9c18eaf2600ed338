"""Making a store takes what it says, and goes on where a stop, a kill or a full disk left it."""

import errno
import logging
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from lungdet.data.store import building, partial
from lungdet.data.store.images import Settings
from lungdet.data.store.store import StoreError
from tests.data.store.toys import stores


def test_a_file_that_may_not_be_read_stops_the_work_and_is_taken_once_it_may(toy, monkeypatch):
    real, refused = Path.open, PermissionError(errno.EACCES, "Permission denied")

    def opened(path, *more, **named):
        if path.name == "03.png":
            raise refused
        return real(path, *more, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", opened)
        with pytest.raises(StoreError, match=r"03\.png: Permission denied; let this user read it"):
            toy.prepare()
    np.testing.assert_array_equal(toy.prepare().images, toy.squares)


@pytest.mark.parametrize("where", ["Path.mkdir", "Partial"])
@pytest.mark.parametrize("number", [errno.EROFS, errno.EDQUOT])
def test_a_disk_that_refuses_is_told_plainly(toy, monkeypatch, where, number):
    def refused(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refused) if where == "Path.mkdir" else monkeypatch.setattr(
        building.Partial, "checkpoint", refused
    )
    with pytest.raises(StoreError, match=r"data\.store|make some"):
        toy.prepare()


def test_what_it_takes_is_said_first(toy, caplog):
    caplog.set_level(logging.INFO)
    toy.prepare()
    lines = [record.getMessage() for record in caplog.records]
    assert "preparing 6 images, 16 x 16 (squash)" in lines[0]
    assert "MB on disk" in lines[0]
    assert "images/s" in lines[1]


def test_a_disk_too_small_is_refused_before_anything_is_written(toy, monkeypatch):
    monkeypatch.setattr(building.shutil, "disk_usage", lambda _: SimpleNamespace(free=9))
    with pytest.raises(StoreError, match=r"needs 0\.0 MB more.* 0\.0 MB free.*data\.store"):
        toy.prepare()
    assert stores(toy.stores) == []


def test_files_that_vanish_meanwhile_stop_the_work_and_are_not_left_out(toy, monkeypatch):
    real = building.read_square

    def unmounted(path, settings):
        path.unlink(missing_ok=True)
        return real(path, settings)

    monkeypatch.setattr(building, "read_square", unmounted)
    with pytest.raises(StoreError, match="still mounted"):
        toy.prepare()


def test_a_stopped_run_goes_on_where_it_was(toy, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    real, decoded = building.read_square, []

    def stopping(path, settings):
        if len(decoded) == 4:
            raise KeyboardInterrupt
        decoded.append(path.name)
        return real(path, settings)

    monkeypatch.setattr(building.hardware, "cores", lambda: 1)
    monkeypatch.setattr(building, "read_square", stopping)
    with pytest.raises(KeyboardInterrupt):
        toy.prepare()
    assert [name.endswith(".partial") for name in stores(toy.stores)] == [True]
    kept = set(decoded)
    monkeypatch.setattr(building, "read_square", lambda p, s: (decoded.append(p.name), real(p, s))[1])
    store = toy.prepare()
    assert len(decoded) == 6
    assert set(decoded[4:]).isdisjoint(kept)
    assert "going on: 4 of 6 are done" in caplog.text
    np.testing.assert_array_equal(store.images, toy.squares)


def test_what_was_finished_is_known_after_a_stop_and_what_cannot_be_used_is_tried_again(tmp_path):
    square = np.ones((4, 4), np.uint8)
    with partial.Partial(tmp_path / "growing", 4, 4) as growing:
        growing.add(0, square, 1)
        growing.leave_out(1, "why")
        growing.add(2, square.astype(np.uint16), 1)
        assert growing.finished.tolist() == [True, True, True, False]
    with partial.Partial(tmp_path / "growing", 4, 4) as growing:
        assert growing.finished.tolist() == [True, False, True, False]
        assert growing.deep.tolist() == [False, False, True, False]


def test_a_stop_while_finishing_is_repeated_without_harm(tmp_path):
    """Gaps are closed by moving images and 16-bit rows are scaled: done twice, the result must be the same."""
    squares = np.random.default_rng(0).integers(1, 250, (5, 4, 4)).astype(np.uint8)
    for _ in range(3):
        with partial.Partial(tmp_path / "growing", 5, 4) as growing:
            for row in np.flatnonzero(~growing.finished):
                if row in (0, 2):
                    growing.leave_out(int(row), "why")
                else:
                    deep = row == 3
                    growing.add(
                        row, squares[row].astype(np.uint16) * 16 if deep else squares[row], 255 * (16 if deep else 1)
                    )
            order, bits = growing.finish(np.array(["a"] * 5), Settings(size=4))
            assert order.tolist() == [3, 1, 4]
            assert bits == {"a": 12}
            assert growing.reasons == {0: "why", 2: "why"}
    partial.clear(tmp_path / "growing", 4)
    images = np.load(tmp_path / "growing" / "images.npy")
    np.testing.assert_array_equal(images[1:], squares[[1, 4]])
    np.testing.assert_array_equal(images[0], np.rint(squares[3] * 16.0 * 255 / 4095))


PREPARING = """
    import logging, sys
    from pathlib import Path
    import pandas as pd
    from lungdet.data.store import building, partial, store
    from lungdet.data.store.images import Settings

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    partial.CHECKPOINT_SECONDS, building.hardware.cores = 0, lambda: 1
    real, left = building.read_square, int(sys.argv[1])
    def read(path, settings):
        global left
        if not left:
            print("waits", flush=True)
            sys.stdin.readline()
        left -= 1
        print("decoded", path.name, flush=True)
        return real(path, settings)
    building.read_square = read
    manifest = pd.read_parquet("manifest.parquet")
    prepared = store.prepare(manifest, {"toy": Path("toy")}, Settings(size=16), Path("stores"))
    print("images", len(prepared.images), flush=True)
"""


def preparing(toy, before=-1):
    """A process that prepares the toy images; after so many it waits for a line on its standard input."""
    toy.manifest.to_parquet(toy.root.parent / "manifest.parquet")
    command = [sys.executable, "-c", textwrap.dedent(PREPARING), str(before)]
    return subprocess.Popen(
        command, cwd=toy.root.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def until(process, words):
    """What the process prints up to the line with these words."""
    printed = ""
    for line in process.stdout:
        printed += line
        if words in line:
            return printed
    raise AssertionError(f"it never printed {words}: {printed}")


def test_work_survives_kill_9(toy):
    killed = preparing(toy, before=4)
    until(killed, "waits")
    while not (rows := list(toy.stores.glob("*.partial/rows.npy"))) or (np.load(rows[0])[0] >= 0).sum() < 2:
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    done = (np.load(rows[0])[0] >= 0).sum()
    assert 2 <= done <= 4
    printed, _ = preparing(toy).communicate()
    assert f"going on: {done} of 6 are done" in printed
    assert printed.count("decoded") == 6 - done
    np.testing.assert_array_equal(toy.prepare().images, toy.squares)


def test_two_processes_at_once_make_one_store(toy):
    first = preparing(toy, before=1)
    printed = until(first, "waits")
    second = preparing(toy)
    waiting = until(second, "another process is preparing")
    printed += first.communicate("\n")[0]
    waiting += second.communicate()[0]
    assert printed.count("decoded") == 6
    assert "decoded" not in waiting
    assert "images 6" in printed
    assert "images 6" in waiting
    assert len(stores(toy.stores)) == 1


def test_opencvs_threads_are_left_as_they_were(toy):
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        toy.prepare()
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)
