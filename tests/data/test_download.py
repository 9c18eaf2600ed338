"""The command, with the real configuration and a server on this machine in the place of the publishers'."""

import hashlib
import io
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from copy import deepcopy
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from lungdet.data.download import downloading as download
from lungdet.data.download.unpacking import DownloadError
from lungdet.data.sources.chestxray14 import ChestXray14DataModule
from lungdet.data.sources.montgomery import MontgomeryDataModule
from lungdet.data.sources.shenzhen import ShenzhenDataModule
from lungdet.programs import download as program
from tests.calling import CHECKOUT
from tests.fake_server import Resource, serving, tarred, zipped


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
TABLE = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,{sex},View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
    "00000001_000.png,Cardiomegaly,0,1,57,M,PA,2682,2749,0.143,0.143\n"
    "00000001_001.png,No Finding,1,1,58,M,PA,2894,2729,0.143,0.143\n"
    "00000002_000.png,Nodule|Mass,0,2,80,F,AP,2500,2048,0.171,0.171\n"
)
ZIP = "NLM-MontgomeryCXRSet.zip"


def inside(top: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{top}/{name}": body for name, body in files.items()} | {f"__MACOSX/{top}/._x": b"x"}


ARCHIVE = zipped(inside("MontgomerySet", MONTGOMERY))


@pytest.fixture(scope="module")
def publisher():
    with serving() as server:
        yield server


@pytest.fixture
def server(publisher):
    publisher.resources.clear()
    return publisher


@pytest.fixture
def disk(monkeypatch):
    """Pretend how much is free."""
    return lambda free: monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))


@cache
def shipped(name: str) -> DictConfig:
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        return compose("download", [f"download={name}"])


@pytest.fixture
def composed(server, tmp_path, monkeypatch):
    """The real configuration of a dataset, with addresses of this machine and no length or checksum."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between attempts

    def composed(name: str, **settings):
        config = deepcopy(shipped(name))
        config.root = str(tmp_path / "data")
        for file in config.files.values():
            file.bytes, file.url, file.checksum = None, f"{server.address}/{file.name}", None
        return OmegaConf.merge(config, settings)

    return composed


@pytest.fixture
def serve(server):
    def serve(name: str, body: bytes, **more) -> Resource:
        resource = server.resources[f"/{name}"] = Resource(body, **more)
        return resource

    return serve


@pytest.mark.parametrize(
    ("dataset", "archive", "top", "files"),
    [
        (MontgomeryDataModule, ZIP, "MontgomerySet", MONTGOMERY),
        (ShenzhenDataModule, "ChinaSet_AllFiles.zip", "ChinaSet_AllFiles", SHENZHEN),
    ],
    ids=["montgomery", "shenzhen"],
)
def test_a_tuberculosis_set_reads_after_download(serve, composed, tmp_path, dataset, archive, top, files):
    serve(archive, zipped(inside(top, files)))
    download.download(composed(dataset.name))
    root = tmp_path / "data"
    assert sorted(path.name for path in root.iterdir()) == sorted([top, "download"])
    assert {p.relative_to(root / top).as_posix() for p in (root / top).rglob("*") if p.is_file()} == set(files)
    table = dataset(root).read()
    assert table["tuberculosis"].tolist() == [int(file.endswith("_1.png")) for file in files if "CXR_png" in file]


@pytest.mark.parametrize("sex", ["Patient Gender", "Patient Sex"])
def test_chestxray14_reads_after_download(serve, composed, tmp_path, sex):
    serve("Data_Entry_2017_v2020.csv", TABLE.format(sex=sex).encode())
    serve("train_val_list.txt", b"00000001_000.png\n00000001_001.png")
    serve("test_list.txt", b"00000002_000.png")
    serve("images_001.tar.gz", tarred({f"images/00000001_00{n}.png": png(n) for n in (0, 1)}))
    serve("images_012.tar.gz", tarred({"images/00000002_000.png": png(3)}))
    download.download(composed("chestxray14", take=["table", "train_val", "test", "images_001", "images_012"]))
    table = ChestXray14DataModule(tmp_path / "data").read()
    assert len(table) == 3
    assert table["path"].iloc[0] == "images_001/images/00000001_000.png"
    assert ChestXray14DataModule(tmp_path / "data").official().tolist() == ["train_val", "train_val", "test"]
    assert not list((tmp_path / "data" / "download").glob("*.gz"))


def test_a_second_run_asks_for_nothing(serve, composed, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    resources = [serve(ZIP, ARCHIVE), serve("test_list.txt", b"00000002_000.png")]
    for _ in range(2):
        download.download(composed("montgomery"))
        download.download(composed("chestxray14", take="test", root=str(tmp_path / "c")))
    assert [resource.requests for resource in resources] == [1, 1]
    assert f"{tmp_path / 'data' / 'MontgomerySet'} is there: left as it is" in caplog.messages
    assert f"{tmp_path / 'c' / 'test_list.txt'} is there: left as it is" in caplog.messages
    assert {path.name for path in (tmp_path / "data" / "download").iterdir()} == {f"{ZIP}.checksum", ".lock"}


def test_what_others_put_there_is_left_as_it_is(composed, tmp_path):
    (tmp_path / "data" / "MontgomerySet").mkdir(parents=True)
    (tmp_path / "data" / "MontgomerySet" / "mine").write_bytes(b"mine")
    download.download(composed("montgomery"))
    assert [path.name for path in (tmp_path / "data" / "MontgomerySet").iterdir()] == ["mine"]


def test_images_in_another_layout_are_not_fetched_twice(composed, tmp_path):
    (tmp_path / "data" / "CXR_png").mkdir(parents=True)
    with pytest.raises(DownloadError, match=r"has CXR_png, which this command did not make.*another folder"):
        download.download(composed("montgomery"))


def test_two_downloads_into_one_folder_do_not_meet(composed, tmp_path):
    (tmp_path / "data" / "download").mkdir(parents=True)
    with FileLock(tmp_path / "data" / "download" / ".lock"), pytest.raises(DownloadError, match="is under way"):
        download.download(composed("montgomery"))


def test_terms_and_citation_come_first(composed, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(DownloadError):
        download.download(composed("chestxray14"))
    lines = caplog.messages[0].splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["chestxray14,", "terms:", "cite:"]
    assert "CVPR 2017" in lines[2]


def test_a_moved_file_names_the_address_and_the_setting(server, composed):
    with pytest.raises(DownloadError) as raised:
        download.download(composed("chestxray14", take="images_003"))
    for word in (
        f"{server.address}/images_003.tar.gz",
        "404 Client Error",
        "files.images_003.url",
        "conf/download/chestxray14.yaml",
        "data/download/images_003.tar.gz yourself",
    ):
        assert word in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/file", "nothing", ""])
def test_an_address_that_leads_nowhere_is_an_error(composed, address):
    with pytest.raises(DownloadError, match=f"^{address} cannot be fetched"):
        download.download(composed("montgomery", files={"archive": {"url": address}}))


def test_a_cut_or_busy_server_is_asked_again(serve, composed, tmp_path):
    resource = serve(ZIP, ARCHIVE, cuts=[len(ARCHIVE) - 1], answers=[503, 429])
    download.download(composed("montgomery"))
    assert resource.requests == 4
    assert len(MontgomeryDataModule(tmp_path / "data").read()) == 3


def test_a_server_that_always_cuts_is_given_up_and_nothing_passes_for_the_file(serve, composed, tmp_path):
    resource = serve(ZIP, ARCHIVE, cuts=[len(ARCHIVE) - 1] * 50)
    with pytest.raises(DownloadError, match="cannot be fetched"):
        download.download(composed("montgomery", attempts=2))
    assert resource.requests == 2
    assert [path.name for path in (tmp_path / "data").rglob("*") if path.is_file()] == [".lock"]


def test_another_length_than_stated_is_refused(serve, composed, tmp_path):
    serve(ZIP, b"<html>Press the button</html>")
    with pytest.raises(DownloadError, match=r"gave 29 bytes, not 616,853,875 .*files\.archive\.url.*kept as .*refused"):
        download.download(composed("montgomery", files={"archive": {"bytes": 616_853_875}}))
    assert not (tmp_path / "data" / "MontgomerySet").exists()


def test_a_wrong_checksum_is_refused_and_the_next_run_fetches_anew(server, serve, composed, tmp_path):
    wrong = serve("test_list.txt", b"wrong")
    checksum = f"md5:{hashlib.md5(b'right').hexdigest()}"
    config = composed("chestxray14", take="test", files={"test": {"checksum": checksum}})
    with pytest.raises(DownloadError, match=rf"{server.address}/test_list.txt gave another.*files\.test\.checksum"):
        download.download(config)
    assert wrong.requests == 1
    assert not (tmp_path / "data" / "test_list.txt").exists()
    serve("test_list.txt", b"right")
    download.download(config)
    assert (tmp_path / "data" / "test_list.txt").read_bytes() == b"right"
    config.files.test.checksum, config.root = "crc:1", str(tmp_path / "other")
    with pytest.raises(DownloadError, match=r"files\.test\.checksum=crc:1: Algorithm 'crc'"):
        download.download(config)


def test_the_first_checksum_is_recorded_and_another_refused(serve, composed, tmp_path):
    serve(ZIP, ARCHIVE)
    config = composed("montgomery")
    precious, record = tmp_path / "precious", tmp_path / "data" / "download" / f"{ZIP}.checksum"
    download.download(config)
    assert record.read_text() == f"sha256:{hashlib.sha256(ARCHIVE).hexdigest()}"

    shutil.rmtree(tmp_path / "data" / "MontgomerySet")
    serve(ZIP, zipped(inside("MontgomerySet", SHENZHEN)))
    with pytest.raises(DownloadError, match=r"gave another file.*\.checksum \(delete it if there is a newer"):
        download.download(config)
    assert not (tmp_path / "data" / "MontgomerySet").exists()
    record.unlink()
    record.symlink_to(precious)
    download.download(config)
    assert not precious.exists()  # what is recorded lands in no other file


def test_a_damaged_archive_is_neither_recorded_nor_tried_again(serve, composed, tmp_path):
    serve(ZIP, ARCHIVE[:-30])
    with pytest.raises(DownloadError, match=r"damaged.*run again to fetch it anew"):
        download.download(composed("montgomery"))
    serve(ZIP, ARCHIVE)
    download.download(composed("montgomery"))
    assert len(MontgomeryDataModule(tmp_path / "data").read()) == 3


@pytest.mark.parametrize(("keep", "needed"), [(False, r"5\.16"), (True, r"8\.16")])
def test_too_little_disk_says_how_much_is_needed_and_where(composed, tmp_path, disk, keep, needed):
    disk(free=1_500_000_000)
    keys = ["images_001", "images_002", "images_003", "images_004"]
    files = {key: {"bytes": 1_000_000_000} for key in keys}
    with pytest.raises(DownloadError, match=rf"{tmp_path / 'data'} needs {needed} GB.*has 1\.50 GB"):
        download.download(composed("chestxray14", take=keys, keep=keep, files=files))


def test_what_is_there_already_needs_no_more_disk(composed, tmp_path, disk):
    (tmp_path / "data" / "download").mkdir(parents=True)
    (tmp_path / "data" / "download" / ZIP).write_bytes(b"x" * 30_000_000)
    disk(free=0)
    with pytest.raises(DownloadError, match=r"needs 0\.10 GB"):
        download.download(composed("montgomery", files={"archive": {"bytes": 65_000_000}}))


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path, monkeypatch, capsys):
    (tmp_path / "data").write_bytes(b"a file")
    for root, message in ((tmp_path / "data", "a file is where a folder is to be"), ("???", r"where to\? root=DIR")):
        monkeypatch.setattr(sys, "argv", ["lungdet download", "montgomery", f"root={root}"])
        with pytest.raises(SystemExit, match=message):
            program.start()


def test_kept_archives_stay(serve, composed, tmp_path):
    serve(ZIP, ARCHIVE)
    download.download(composed("montgomery", keep=True))
    assert (tmp_path / "data" / "download" / ZIP).read_bytes() == ARCHIVE


def test_an_archive_put_there_by_hand_is_unpacked(composed, tmp_path):
    (tmp_path / "data" / "download").mkdir(parents=True)
    (tmp_path / "data" / "download" / ZIP).write_bytes(ARCHIVE)
    download.download(composed("montgomery"))
    assert len(MontgomeryDataModule(tmp_path / "data").read()) == 3


def test_an_unknown_part_names_those_that_there_are(composed):
    with pytest.raises(DownloadError, match="take=zip: there are archive, or null for all"):
        download.download(composed("montgomery", take="zip"))


def test_the_shipped_configuration_is_complete():
    archives = [file for key, file in shipped("chestxray14").files.items() if key.startswith("images_")]
    assert [file.folder for file in archives] == [f"images_{number:03}" for number in range(1, 13)]
    assert len({file.url for file in archives}) == len({file.checksum for file in archives}) == 12
    assert min(file.bytes for file in archives) > 2_000_000_000


def test_the_command_stops_at_ctrl_c_and_goes_on_when_run_again(server, serve, composed, tmp_path):
    hold = threading.Event()
    resource = serve("a.zip", ARCHIVE, cuts=[len(ARCHIVE) - 1], hold=hold)
    command = [
        sys.executable, "-m", "lungdet", "download", "montgomery", f"root={tmp_path / 'data'}",
        f"files.archive.url={server.address}/a.zip", "files.archive.bytes=null", "timeout=600",
    ]  # fmt: skip
    # A shell's background job, as the tests may be, hands on that Ctrl-C is to be ignored.
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=os.environ, **pipe, **heed) as process:
        while not resource.requests:
            assert process.poll() is None, process.communicate()[0]
            threading.Event().wait(0.02)
        process.send_signal(signal.SIGINT)
        printed = process.communicate(timeout=600)[0]
    hold.set()
    assert process.returncode == 130, printed
    assert "interrupted" in printed
    assert "Two public chest X-ray datasets" in printed
    assert "Traceback" not in printed
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".lock"]
    serve(ZIP, ARCHIVE)
    download.download(composed("montgomery"))
    assert len(MontgomeryDataModule(tmp_path / "data").read()) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"montgomery\|shenzhen\|chestxray14 root=DIR"),
        (["root=x"], "You must specify 'download'"),
        (["chexpert", "root=x"], "download=chexpert: there is no such choice.*chestxray14.*montgomery.*shenzhen"),
        (["montgomery", "root=x", "-m"], "one dataset at a time"),
    ],
)
def test_a_command_that_does_not_name_one_dataset_says_which_there_are(monkeypatch, words, message):
    monkeypatch.setattr(sys, "argv", ["lungdet download", *words])
    with pytest.raises(SystemExit, match=f"(?s){message}"):
        program.start()
