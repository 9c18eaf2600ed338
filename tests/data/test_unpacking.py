"""Archives, good, wicked and damaged."""

import errno
import gzip
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from lungdet.data.download import unpacking
from lungdet.errors import InputError
from tests.fake_server import tarred, zipped


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def encrypted(archive: bytes) -> bytes:
    """With the flag of encryption at the first member, in its own header and in the archive's list."""
    changed = bytearray(archive)
    changed[changed.index(b"PK\3\4") + 6] |= 1
    changed[changed.index(b"PK\1\2") + 8] |= 1
    return bytes(changed)


GOOD = {"images/a.png": b"a" * 5000, "images/b.png": b"b", "read me.txt": b""}
WICKED = {
    "up.zip": (zipped(GOOD | {"images/../../evil": b"x"}), "'images/../../evil', which leads out"),
    "up, a folder.zip": (zipped(GOOD | {"../evil/": b""}), "'../evil/', which leads out"),
    "back.zip": (zipped(GOOD | {"..\\evil": b"x"}), r"'..\\\\evil', which leads out"),
    "absolute.zip": (zipped(GOOD | {"/elsewhere/evil": b"x"}), "'/elsewhere/evil', which leads out"),
    "drive.zip": (zipped(GOOD | {"C:/evil": b"x"}), "'C:/evil', which leads out"),
    "link.zip": (zipped(GOOD | {"link": b"/etc/passwd"}, link=0o120777), "'link', which is a link"),
    "null.zip": (zipped(GOOD | {"c~.png": b"x"}).replace(b"c~.png", b"c\0.png"), "embedded null"),
    "encrypted.zip": (encrypted(zipped(GOOD)), "encrypted.*images/a.png"),
    "up.tar.gz": (tarred(GOOD | {"../evil": b"x"}), "'../evil', which leads out"),
    "absolute.tar.gz": (tarred(GOOD | {"/elsewhere/evil": b"x"}), "'/elsewhere/evil', which leads out"),
    "link.tar.gz": (tarred(GOOD, special("link", tarfile.SYMTYPE, "/etc/passwd")), "'link', which is a link"),
    "hard.tar.gz": (tarred(GOOD, special("hard", tarfile.LNKTYPE, "images/a.png")), "'hard', which is a link"),
    "device.tar.gz": (tarred(GOOD, special("device", tarfile.CHRTYPE)), "'device', which is a link or a device"),
    "pipe.tar.gz": (tarred(GOOD, special("pipe", tarfile.FIFOTYPE)), "'pipe', which is a link or a device"),
    "twice.zip": (zipped(GOOD | {"images\\a.png": b"x"}), r"'images\\\\a.png' twice"),
    "twice.tar.gz": (tarred(GOOD, tarfile.TarInfo("images/a.png")), "'images/a.png' twice"),
    "a folder, too.tar.gz": (tarred(GOOD, special("images/a.png", tarfile.DIRTYPE)), "'images/a.png' twice"),
    "a folder of a file.tar.gz": (tarred(GOOD, tarfile.TarInfo("images/a.png/b")), "'images/a.png/b' twice"),
}


def refuse(tmp_path: Path, body: bytes, message: str) -> None:
    """The archive is refused, and nothing is left but itself."""
    (tmp_path / "archive").write_bytes(body)
    with pytest.raises(InputError, match=message):
        unpacking.unpack(tmp_path / "archive", tmp_path / "target", tmp_path / "aside")
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize("name", WICKED)
def test_a_wicked_member_is_named_and_nothing_is_left(tmp_path, name):
    refuse(tmp_path, *WICKED[name])


@pytest.mark.parametrize("body", [zipped(GOOD), tarred(GOOD)], ids=["zip", "tar.gz"])
def test_an_archive_is_unpacked_whole_and_a_truncated_one_not_at_all(tmp_path, body):
    for length in (len(body) - 4, len(body) * 2 // 3, 5, 0):
        refuse(tmp_path, body[:length], "damaged")
    (tmp_path / "archive").write_bytes(body)
    unpacking.unpack(tmp_path / "archive", tmp_path / "target", tmp_path / "aside")
    files = {path for path in (tmp_path / "target").rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path / "target").as_posix(): path.read_bytes() for path in files} == GOOD
    assert not (tmp_path / "aside").exists()


@pytest.mark.parametrize("body", [zipped(GOOD), tarred(GOOD)], ids=["zip", "tar.gz"])
def test_what_the_disk_cannot_hold_is_refused_before_it_is_unpacked(tmp_path, body, monkeypatch):
    (tmp_path / "archive").write_bytes(body)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4000))
    monkeypatch.setattr(unpacking, "_members", lambda _: pytest.fail("unpacked"))
    with pytest.raises(OSError, match=r"unpacked it takes at least 0\.00 GB") as caught:
        unpacking.unpack(tmp_path / "archive", tmp_path / "target", tmp_path / "aside")
    assert caught.value.errno == errno.ENOSPC


def test_names_with_the_slashes_of_windows_are_folders_too(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({r"images\a.png": b"a", "empty/": b""}))
    unpacking.unpack(tmp_path / "a.zip", tmp_path / "target", tmp_path / "aside")
    assert (tmp_path / "target" / "images" / "a.png").read_bytes() == b"a"
    assert (tmp_path / "target" / "empty").is_dir()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_flipped_bit_or_a_lost_byte_of_a_zip_is_noticed(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "archive", "w", method) as archive:
        archive.writestr("a", bytes(range(256)))
    body = (tmp_path / "archive").read_bytes()
    refuse(tmp_path, body[:90] + bytes([body[90] ^ 1]) + body[91:], "damaged")
    refuse(tmp_path, body[:90] + body[91:], "damaged")


@pytest.mark.parametrize("place", [1, 512 + 5120 + 1], ids=["first", "a later one"])
def test_a_broken_member_of_a_tar_hides_no_others(tmp_path, place):
    body = bytearray(gzip.decompress(tarred(GOOD)))
    body[place] ^= 1  # in a member's header; tarfile takes it for the end
    refuse(tmp_path, gzip.compress(body), "damaged")


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
