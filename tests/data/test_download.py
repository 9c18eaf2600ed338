"""The command, with the real configuration and a server on this machine in the place of the publishers'."""

import errno
import hashlib
import io
import logging
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from lungdet.data.download.downloading import download
from lungdet.data.sources.chestxray14 import ChestXray14DataModule
from lungdet.data.sources.montgomery import MontgomeryDataModule
from lungdet.data.sources.shenzhen import ShenzhenDataModule
from lungdet.errors import InputError
from lungdet.machine.locking import alone
from lungdet.programs import download as program
from tests import calling
from tests.fake_server import serving, tarred, zipped


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 32), np.uint8)).save(buffer, "png")
    return buffer.getvalue()


MONTGOMERY = {f"CXR_png/MCUCXR_{number:04}_{label}.png": png(number) for number, label in ((1, 0), (2, 0), (3, 1))} | {
    "ClinicalReadings/MCUCXR_0001_0.txt": b"Patient's Sex: F \nPatient's Age: 027Y\nnormal\n",
    "ClinicalReadings/MCUCXR_0003_1.txt": b"",
}
SHENZHEN = {
    "CXR_png/CHNCXR_0001_0.png": png(1),
    "CXR_png/CHNCXR_0327_1.png": png(2),
    "ClinicalReadings/CHNCXR_0001_0.txt": b"male 45yrs\r\nnormal",
}
TABLE = b"""Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,OriginalImage[..
00000001_000.png,Cardiomegaly,0,1,57,M,PA,2682,2749,0.143,0.143
00000001_001.png,No Finding,1,1,58,M,PA,2894,2729,0.143,0.143
00000002_000.png,Nodule|Mass,0,2,80,F,AP,2500,2048,0.171,0.171
"""
ZIP = "NLM-MontgomeryCXRSet.zip"


def inside(top: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{top}/{name}": body for name, body in files.items()} | {f"__MACOSX/{top}/._x": b"x"}


ARCHIVE = zipped(inside("MontgomerySet", MONTGOMERY))


shipped = cache(lambda name: calling.composed("download", f"download={name}"))


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def composed(server, root, monkeypatch):
    """The real configuration of a dataset, with addresses of this machine and no length or checksum."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between attempts

    def composed(name: str, **settings) -> DictConfig:
        config = deepcopy(shipped(name))
        config.root = str(root)
        for file in config.files.values():
            file.bytes, file.url, file.checksum = None, f"{server.address}/{file.name}", None
        return OmegaConf.merge(config, settings)

    return composed


@pytest.mark.parametrize(
    ("source", "members"),
    [(MontgomeryDataModule, MONTGOMERY), (ShenzhenDataModule, SHENZHEN)],
    ids=["Montgomery", "Shenzhen"],
)
def test_a_tuberculosis_set_reads_after_download(server, composed, root, source, members):
    config = composed(source.name)
    archive, top = config.files.archive.name, config.files.archive.folder
    server.serve(archive, zipped(inside(top, members)))
    download(config)
    assert {*files(root)} == {f"download/{archive}.checksum", *(f"{top}/{name}" for name in members)}
    table = source(root).read()
    assert table["tuberculosis"].tolist() == [int(file.endswith("_1.png")) for file in members if "CXR_png" in file]


def test_chestxray14_reads_after_download(server, composed, root):
    server.serve("Data_Entry_2017_v2020.csv", TABLE)
    server.serve("train_val_list.txt", b"00000001_000.png\n00000001_001.png")
    server.serve("test_list.txt", b"00000002_000.png")
    server.serve("images_001.tar.gz", tarred({f"images/00000001_00{n}.png": png(n) for n in (0, 1)}))
    server.serve("images_012.tar.gz", tarred({"images/00000002_000.png": png(3)}))
    download(composed("chestxray14", take=["table", "train_val"]))
    assert not (root / "download" / "unfinished").exists()
    download(composed("chestxray14", take=["test", "images_001", "images_012"]))
    data = ChestXray14DataModule(root)
    table = data.read()
    assert len(table) == 3
    assert table["path"].iloc[0] == "images_001/images/00000001_000.png"
    assert data.official().tolist() == ["train_val", "train_val", "test"]
    assert not list((root / "download").glob("*.gz"))


def test_the_next_download_asks_for_what_is_missing_alone_and_leaves_the_rest_as_it_is(server, composed, root, caplog):
    caplog.set_level(logging.INFO)
    table, first = (
        server.serve("test_list.txt", b"a"),
        server.serve("images_001.tar.gz", tarred({"images/a.png": b"a"})),
    )
    (root / "images_003").mkdir(parents=True)  # by somebody else
    config = composed("chestxray14", take=["test", "images_001", "images_002", "images_003"])
    with pytest.raises(InputError, match="images_002"):
        download(config)
    second = server.serve("images_002.tar.gz", tarred({"images/b.png": b"b"}))
    for _ in range(2):
        download(config)
    assert re.match(r"(?s)chestxray14, .*\nterms: .*NIH Clinical Center.*\ncite: .*CVPR 2017", caplog.messages[0])
    assert [resource.requests for resource in (table, first, second)] == [1, 1, 1]
    assert f"{root / 'images_001'} is there: left as it is" in caplog.messages
    assert files(root / "images_003") == []
    assert caplog.messages[-1].endswith(f"data=chestxray14 data.root={root}")


def test_a_download_that_was_killed_leaves_the_next_one_room(server, composed, root):
    (root / "download" / "unfinished" / "MontgomerySet" / "half").mkdir(parents=True)
    (root / "download" / "unfinished" / "MontgomerySet" / "half" / "file").touch()
    (root / "download" / ZIP).write_bytes(ARCHIVE)  # put there by hand, too
    download(composed("montgomery"))
    assert len(files(root)) == len(["checksum", *MONTGOMERY])


@pytest.mark.parametrize("take", ["zip", ["archive", "zip"], [], 5])
def test_a_part_that_there_is_not_is_refused_with_those_that_there_are(composed, take):
    with pytest.raises(InputError, match=f"^take={re.escape(str(take))}: there are archive$"):
        download(composed("montgomery", take=take))


def test_images_in_another_layout_are_not_fetched_twice(composed, root):
    (root / "CXR_png").mkdir(parents=True)
    with pytest.raises(InputError, match=r"has CXR_png: images would be there twice.*another root"):
        download(composed("montgomery"))


def test_two_downloads_into_one_folder_do_not_meet(composed, root):
    with alone(root, root / "download" / ".lock"), pytest.raises(InputError, match=f"^root={root}: another process"):
        download(composed("montgomery"))


@pytest.mark.parametrize(("present", "needed"), [(0, r"5\.16"), (1, r"4\.16")], ids=["none", "an archive"])
def test_too_little_disk_is_refused_before_the_start_with_what_is_needed(composed, root, monkeypatch, present, needed):
    keys = ["images_001", "images_002", "images_003", "images_004"]
    (root / "download").mkdir(parents=True)
    with open(root / "download" / "images_001.tar.gz", "wb") as file:
        file.truncate(present * 1_000_000_000)  # of which the disk keeps nothing
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_500_000_000))
    config = composed("chestxray14", take=keys, files={key: {"bytes": 1_000_000_000} for key in keys})
    with pytest.raises(InputError, match=rf"{root} needs {needed} GB, its disk has 1\.50 GB.*take="):
        download(config)


def test_a_disk_that_is_filled_meanwhile_is_named_and_nothing_is_left(server, composed, root, monkeypatch):
    def full(*_) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    server.serve(ZIP, ARCHIVE)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match=f"No space.*{root / 'download'}"):
        download(composed("montgomery"))
    assert files(root) == [f"download/{ZIP}"]


@pytest.mark.parametrize(
    ("address", "reason"),
    [("http://127.0.0.1:9/a", "refused"), ("nothing", "No scheme"), ("", "No scheme"), (None, "404")],
)
def test_an_address_that_leads_nowhere_is_an_error_that_says_what_to_do(server, composed, root, address, reason):
    address = f"{server.address}/{ZIP}" if address is None else address
    with pytest.raises(InputError, match=f"^files.archive: {address} cannot be fetched.*{reason}") as raised:
        download(composed("montgomery", files={"archive": {"url": address}}))
    for word in ("dataset.html", "files.archive.url=", f"put the file at {root / 'download' / ZIP} yourself"):
        assert word in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_cut_or_busy_server_is_asked_again_and_given_up_in_the_end(server, composed, root):
    resource = server.serve(ZIP, ARCHIVE, cuts=[len(ARCHIVE) - 1] * 4)
    with pytest.raises(InputError, match="cannot be fetched"):
        download(composed("montgomery"))
    assert resource.requests == 4
    assert files(root) == []  # nothing passes for the file
    resource.cuts, resource.answers = [len(ARCHIVE) - 1], [503, 429]
    download(composed("montgomery"))
    assert resource.requests == 8
    assert len(MontgomeryDataModule(root).read()) == 3


MD5 = f"md5:{hashlib.md5(ARCHIVE).hexdigest()}"


@pytest.mark.parametrize(
    ("body", "settings", "message"),
    [
        (b"<html>Press the button</html>", {"bytes": len(ARCHIVE)}, rf"gave 29 bytes, not {len(ARCHIVE):,} as `bytes`"),
        (b"wrong", {"checksum": MD5.upper()}, rf"gave md5:\w+, not {MD5} as `checksum`"),
        (ARCHIVE[:-30], {}, "gave what is damaged"),
        (zipped({"../evil": b"x"}), {}, r"gave '../evil', which leads out of the folder"),
    ],
    ids=["length", "checksum", "damaged", "wicked"],
)
def test_a_file_that_cannot_be_trusted_is_kept_aside_and_the_next_run_fetches_anew(
    server, composed, root, body, settings, message
):
    wrong, config = server.serve(ZIP, body), composed("montgomery", files={"archive": settings})
    with pytest.raises(InputError, match=f"^files.archive: {server.address}/{ZIP} {message}.*kept as .*refused. Run"):
        download(config)
    assert wrong.requests == 1
    assert files(root) == [f"download/{ZIP}.refused"]  # and no checksum of it
    assert (root / "download" / f"{ZIP}.refused").read_bytes() == body
    wrong.body = ARCHIVE
    download(config)
    assert len(MontgomeryDataModule(root).read()) == 3


def test_a_checksum_of_no_known_kind_is_an_error_that_costs_no_second_fetch(server, composed, root):
    resource, config = server.serve(ZIP, ARCHIVE), composed("montgomery", files={"archive": {"checksum": "crc:1"}})
    with pytest.raises(InputError, match=r"^files\.archive: .*Algorithm 'crc'"):
        download(config)
    config.files.archive.checksum = MD5
    download(config)
    assert resource.requests == 1


def test_the_first_checksum_is_recorded_and_another_refused(server, composed, root, tmp_path):
    resource, config = server.serve(ZIP, ARCHIVE), composed("montgomery")
    precious, record = tmp_path / "precious", root / "download" / f"{ZIP}.checksum"
    download(config)
    assert record.read_text() == f"sha256:{hashlib.sha256(ARCHIVE).hexdigest()}"

    shutil.rmtree(root / "MontgomerySet")
    resource.body = zipped(inside("MontgomerySet", SHENZHEN))
    with pytest.raises(InputError, match=r"gave sha256:\w+, not sha256:.*\.checksum \(delete it if there is a newer"):
        download(config)
    assert not (root / "MontgomerySet").exists()
    record.unlink()
    record.symlink_to(precious)
    download(config)
    assert not precious.exists()  # what is recorded lands in no other file


def test_the_shipped_configuration_is_complete():
    archives = [file for key, file in shipped("chestxray14").files.items() if key.startswith("images_")]
    assert [file.folder for file in archives] == [f"images_{number:03}" for number in range(1, 13)]
    assert len({file.url for file in archives}) == len({file.checksum for file in archives}) == 12
    assert min(file.bytes for file in archives) > 2_000_000_000


def test_the_command_stops_at_ctrl_c_and_goes_on_when_run_again(server, composed, root, tmp_path):
    hold = threading.Event()
    resource = server.serve("a.zip", ARCHIVE, cuts=[len(ARCHIVE) - 1], hold=hold)
    words = [f"root={root}", f"files.archive.url={server.address}/a.zip", "files.archive.bytes=null"]
    command = [sys.executable, "-m", "lungdet", "download", "montgomery", *words]
    # A shell's background job, as the tests may be, hands on that Ctrl-C is to be ignored.
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, **pipe, **heed) as process:
        while not resource.requests:
            assert process.poll() is None, process.communicate()[0]
            threading.Event().wait(0.02)
        begun = files(root)
        process.send_signal(signal.SIGINT)
        printed = process.communicate(timeout=600)[0]
    hold.set()
    assert process.returncode == 130, printed
    assert printed.endswith("interrupted\n")
    assert any(name.startswith("download/unfinished/") for name in begun)  # where the next start clears up
    assert files(tmp_path) == []
    server.serve(ZIP, ARCHIVE)
    download(composed("montgomery"))
    assert len(MontgomeryDataModule(root).read()) == 3


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 0, "lungdet download montgomery root="),
        (["--help"], 0, "lungdet download montgomery root="),
        (["root=x"], 1, "You must specify 'download'"),
        (["chexpert", "root=x"], 1, "download=chexpert: there is no such choice.*chestxray14.*montgomery.*shenzhen"),
        (["montgomery"], 1, r"where to\? root=DIR"),
        (["montgomery", "root=pyproject.toml"], 1, "pyproject.toml.*a file is where a folder is to be"),
    ],
)
def test_a_command_without_one_dataset_and_its_folder_says_what_it_needs(words, status, message):
    done = calling.call(program, *words)
    assert done.returncode == status
    assert re.search(message, done.stdout + done.stderr)
    assert len(done.stderr.splitlines()) == status  # a mistake is a line
