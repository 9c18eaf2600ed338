"""Archives, good, wicked and damaged."""

import shutil
import tarfile
from types import SimpleNamespace

import pytest

from lungdet.data.download import unpacking
from tests.fake_server import tarred, zipped


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


GOOD = {"images/a.png": b"a" * 5000, "images/b.png": b"b", "read me.txt": b""}
WICKED = {
    "up.zip": (zipped(GOOD | {"images/../../evil": b"x"}), "images/../../evil"),
    "back.zip": (zipped(GOOD | {"..\\evil": b"x"}), r"..\\\\evil"),
    "absolute.zip": (zipped(GOOD | {"/elsewhere/evil": b"x"}), "/elsewhere/evil"),
    "drive.zip": (zipped(GOOD | {"C:/evil": b"x"}), "C:/evil"),
    "link.zip": (zipped(GOOD | {"link": b"/etc/passwd"}, link=0o120777), "link"),
    "up.tar.gz": (tarred(GOOD | {"../evil": b"x"}), "../evil"),
    "absolute.tar.gz": (tarred(GOOD | {"/elsewhere/evil": b"x"}), "/elsewhere/evil"),
    "link.tar.gz": (tarred(GOOD, special("link", tarfile.SYMTYPE, "/etc/passwd")), "link"),
    "hard.tar.gz": (tarred(GOOD, special("hard", tarfile.LNKTYPE, "images/a.png")), "hard"),
    "device.tar.gz": (tarred(GOOD, special("device", tarfile.CHRTYPE)), "device"),
    "pipe.tar.gz": (tarred(GOOD, special("pipe", tarfile.FIFOTYPE)), "pipe"),
}


@pytest.mark.parametrize("name", WICKED)
def test_a_wicked_member_is_named_and_nothing_is_left(tmp_path, name):
    body, member = WICKED[name]
    (tmp_path / name).write_bytes(body)
    with pytest.raises(unpacking.UntrustedError, match=f"'{member}'.*publisher's archive"):
        unpacking.unpack(tmp_path / name, tmp_path / "in" / "target", tmp_path / "in" / "aside")
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["in", name])


@pytest.mark.parametrize(("name", "body"), [("a.zip", zipped(GOOD)), ("a.tar.gz", tarred(GOOD))])
def test_an_archive_is_unpacked_whole(tmp_path, name, body):
    (tmp_path / name).write_bytes(body)
    (tmp_path / "aside" / "images").mkdir(parents=True)
    (tmp_path / "aside" / "images" / "a.png").write_bytes(b"half, from a stop before")
    unpacking.unpack(tmp_path / name, tmp_path / "target", tmp_path / "aside")
    unpacked = {
        p.relative_to(tmp_path / "target").as_posix(): p for p in (tmp_path / "target").rglob("*") if p.is_file()
    }
    assert {name: path.read_bytes() for name, path in unpacked.items()} == GOOD
    assert not (tmp_path / "aside").exists()


def test_names_with_the_slashes_of_windows_are_folders_too(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({r"images\a.png": b"a"}))
    unpacking.unpack(tmp_path / "a.zip", tmp_path / "target", tmp_path / "aside")
    assert (tmp_path / "target" / "images" / "a.png").read_bytes() == b"a"


@pytest.mark.parametrize("again", ["images/a.png", "images/a.png/b", "images\\a.png"])
def test_a_name_that_is_in_an_archive_twice_overwrites_nothing(tmp_path, again):
    (tmp_path / "a.tar.gz").write_bytes(tarred(GOOD, tarfile.TarInfo(again)))
    with pytest.raises(unpacking.UntrustedError, match=r"twice, or as a file and a folder"):
        unpacking.unpack(tmp_path / "a.tar.gz", tmp_path / "target", tmp_path / "aside")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


@pytest.mark.parametrize(("name", "body"), [("a.zip", zipped(GOOD)), ("a.tar.gz", tarred(GOOD))])
def test_a_truncated_archive_leaves_nothing(tmp_path, name, body):
    for length in (len(body) - 4, len(body) * 2 // 3, 5, 0):
        (tmp_path / name).write_bytes(body[:length])
        with pytest.raises(unpacking.UntrustedError, match="is damaged"):
            unpacking.unpack(tmp_path / name, tmp_path / "target", tmp_path / "aside")
        assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_flipped_bit_is_noticed(tmp_path):
    body = bytearray(zipped({"a": b"a" * 100}))
    body[body.index(b"aaaa") + 50] ^= 1
    (tmp_path / "a.zip").write_bytes(body)
    with pytest.raises(unpacking.UntrustedError, match=r"damaged.*after a "):
        unpacking.unpack(tmp_path / "a.zip", tmp_path / "target", tmp_path / "aside")


def test_a_stop_in_the_middle_of_unpacking_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(zipped(GOOD))
    copied = []

    def copy(source, target, length):
        if copied:
            raise KeyboardInterrupt
        copied.append(target.write(source.read()))

    monkeypatch.setattr(shutil, "copyfileobj", copy)
    with pytest.raises(KeyboardInterrupt):
        unpacking.unpack(tmp_path / "a.zip", tmp_path / "target", tmp_path / "aside")
    assert copied == [5000]
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_an_archive_that_unpacks_to_more_than_the_disk_has_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5000))
    (tmp_path / "a.zip").write_bytes(zipped(GOOD))
    with pytest.raises(unpacking.DownloadError, match=r"unpacks to 0\.00 GB.*free"):
        unpacking.unpack(tmp_path / "a.zip", tmp_path / "target", tmp_path / "aside")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
