"""The command, with the real configuration and a server on this machine in the place of the publishers'."""

import hashlib
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from lungdet.data.download import __main__ as download
from lungdet.data.download.fetching import DownloadError
from lungdet.data.sources import chestxray14, montgomery, shenzhen
from tests.calling import CHECKOUT
from tests.fake_server import BODY, Resource, serving, tarred, zipped


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


def inside(top: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{top}/{name}": body for name, body in files.items()} | {f"__MACOSX/{top}/._x": b"x"}


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def disk(monkeypatch):
    """Pretend how much is free."""
    return lambda free: monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))


@pytest.fixture
def composed(server, tmp_path):
    """The real configuration of a dataset, with addresses of this machine and no length or checksum."""

    def composed(name: str, *overrides: str):
        with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
            quick = ("wait=0", "longest_wait=0.01", "timeout=600", "attempts=4")
            config = compose("download", [f"download={name}", f"root={tmp_path / 'data'}", *quick, *overrides])
        for file in config.files.values():
            file.bytes = None
            for folder, page in file.get("pages", {}).items():
                page.url, page.files = f"{server.address}/{name}/{folder}/index.html", None
            if "url" in file:
                file.url, file.checksum = f"{server.address}/{file.name}", None
        return config

    return composed


def serve(server, name: str, body: bytes, **more) -> Resource:
    resource = server.resources[f"/{name}"] = Resource(body, **more)
    return resource


def serve_pages(server, name: str, files: dict[str, bytes]) -> dict[str, Resource]:
    for folder in {file.partition("/")[0] for file in files}:
        rows = "".join(
            f"<tr><td class='link'><a href='{file.rpartition('/')[2]}'>x</a></td><td class='size'>{len(body)}</td>"
            for file, body in files.items()
            if file.startswith(folder)
        )
        links = "<a href='../index.html'>up</a><a href='?C=S;O=A'>by size</a><a href='/etc/a.png'>x</a>"
        links += "<a href='..%2f..%2fevil.png'>x</a><a href='..%2f..%2fevil.txt'>x</a><a href='Thumbs.db'>x</a>"
        serve(server, f"{name}/{folder}/index.html", f"<table>{links}{rows}".encode(), kind="text/html")
    return {file: serve(server, f"{name}/{file}", body) for file, body in files.items()}


def read(name: str, root: Path):
    return {"montgomery": montgomery, "shenzhen": shenzhen, "chestxray14": chestxray14}[name].read(root)


@pytest.mark.parametrize(
    ("name", "archive", "top", "files"),
    [
        ("montgomery", "NLM-MontgomeryCXRSet.zip", "MontgomerySet", MONTGOMERY),
        ("shenzhen", "ChinaSet_AllFiles.zip", "ChinaSet_AllFiles", SHENZHEN),
    ],
)
def test_a_tuberculosis_set_reads_after_download_from_either_source(
    server, composed, tmp_path, name, archive, top, files
):
    serve(server, archive, zipped(inside(top, files)))
    serve_pages(server, name, files)
    tables = []
    for take in ("archive", "pages"):
        download.download(composed(name, f"take={take}"))
        root = tmp_path / "data"
        assert sorted(path.name for path in root.iterdir()) == sorted([top, "download"])
        found = {p.relative_to(root / top).as_posix() for p in (root / top).rglob("*") if p.is_file()}
        assert found == set(files)
        tables.append(read(name, root))
        shutil.rmtree(root)
    assert tables[0].equals(tables[1])
    assert tables[0]["tuberculosis"].tolist() == [int(file.endswith("_1.png")) for file in files if "CXR_png" in file]


@pytest.mark.parametrize("sex", ["Patient Gender", "Patient Sex"])
def test_chestxray14_reads_after_download(server, composed, tmp_path, sex):
    serve(server, "Data_Entry_2017_v2020.csv", TABLE.format(sex=sex).encode())
    serve(server, "train_val_list.txt", b"00000001_000.png\n00000001_001.png")
    serve(server, "test_list.txt", b"00000002_000.png")
    serve(server, "images_001.tar.gz", tarred({f"images/00000001_00{n}.png": png(n) for n in (0, 1)}))
    serve(server, "images_012.tar.gz", tarred({"images/00000002_000.png": png(3)}))
    download.download(composed("chestxray14", "take=[table,train_val,test,images_001,images_012]"))
    table = read("chestxray14", tmp_path / "data")
    assert len(table) == 3
    assert table["path"].iloc[0] == "images_001/images/00000001_000.png"
    assert chestxray14.official(tmp_path / "data").tolist() == ["train_val", "train_val", "test"]
    assert not list((tmp_path / "data" / "download").glob("*.gz"))


def test_a_second_run_asks_for_nothing(server, composed, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    resources = [*serve_pages(server, "montgomery", MONTGOMERY).values()]
    resources += [serve(server, "test_list.txt", b"00000002_000.png")]
    for _ in range(2):
        download.download(composed("montgomery"))
        download.download(composed("chestxray14", "take=test", f"root={tmp_path / 'c'}"))
    assert [len(resource.requests) for resource in resources] == [1] * len(resources)
    assert f"{tmp_path / 'data' / 'MontgomerySet'} is there" in caplog.messages
    left = {path.name for path in (tmp_path / "data" / "download").iterdir()}
    assert left == {"checksums.json", ".lock"}
    assert f"{tmp_path / 'c' / 'test_list.txt'} is there" in caplog.messages


def test_what_others_put_there_is_left_and_said(composed, tmp_path, caplog):
    (tmp_path / "data" / "MontgomerySet").mkdir(parents=True)
    download.download(composed("montgomery"))
    assert "not by this command: left as it is" in caplog.text


def test_images_in_another_layout_are_not_fetched_twice(composed, tmp_path):
    (tmp_path / "data" / "CXR_png").mkdir(parents=True)
    with pytest.raises(DownloadError, match=r"has CXR_png, which this command did not make.*another folder"):
        download.download(composed("montgomery"))


def test_terms_and_citation_come_first(composed, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(DownloadError):
        download.download(composed("chestxray14"))
    assert [line.partition(" ")[0] for line in caplog.messages[:3]] == ["chestxray14,", "terms:", "cite:"]
    assert "CVPR 2017" in caplog.messages[2]


def test_a_moved_file_names_the_address_and_the_setting(server, composed, tmp_path):
    with pytest.raises(DownloadError) as raised:
        download.download(composed("chestxray14", "take=images_003"))
    for needed in (
        f"{server.address}/images_003.tar.gz",
        "404",
        "files.images_003.url",
        "conf/download/chestxray14.yaml",
    ):
        assert needed in str(raised.value)
    with pytest.raises(DownloadError, match=r"files\.pages\.pages\.CXR_png\.url"):
        download.download(composed("montgomery"))


def test_a_wrong_checksum_is_refused_and_the_next_run_fetches_anew(server, composed, tmp_path):
    serve(server, "test_list.txt", b"wrong")
    config = composed("chestxray14", "take=test")
    config.files.test.checksum = f"md5:{hashlib.md5(b'right').hexdigest()}"
    with pytest.raises(DownloadError, match=rf"{server.address}/test_list.txt gave another.*files\.test\.checksum"):
        download.download(config)
    assert not (tmp_path / "data" / "test_list.txt").exists()
    serve(server, "test_list.txt", b"right")
    download.download(config)
    assert (tmp_path / "data" / "test_list.txt").read_bytes() == b"right"


def test_the_first_checksum_is_recorded_and_another_refused(server, composed, tmp_path):
    archive = zipped(inside("MontgomerySet", MONTGOMERY))
    serve(server, "NLM-MontgomeryCXRSet.zip", archive)
    config = composed("montgomery", "take=archive")
    download.download(config)
    record = tmp_path / "data" / "download" / "checksums.json"
    entry = json.loads(record.read_text())["NLM-MontgomeryCXRSet.zip"]
    assert (entry["sha256"], entry["bytes"]) == (hashlib.sha256(archive).hexdigest(), len(archive))

    shutil.rmtree(tmp_path / "data" / "MontgomerySet")
    serve(server, "NLM-MontgomeryCXRSet.zip", zipped(inside("MontgomerySet", SHENZHEN)))
    with pytest.raises(DownloadError, match=r"another file than expected.*delete its entry in .*checksums\.json"):
        download.download(config)
    assert not (tmp_path / "data" / "MontgomerySet").exists()
    record.unlink()
    download.download(config)


def test_a_damaged_archive_is_neither_recorded_nor_tried_again(server, composed, tmp_path):
    archive = zipped(inside("MontgomerySet", MONTGOMERY))
    serve(server, "NLM-MontgomeryCXRSet.zip", archive[:-30])
    config = composed("montgomery", "take=archive")
    with pytest.raises(DownloadError, match=r"damaged.*run again to fetch it anew"):
        download.download(config)
    serve(server, "NLM-MontgomeryCXRSet.zip", archive)
    download.download(config)
    assert len(read("montgomery", tmp_path / "data")) == 3


def test_a_page_that_lists_too_few_files_is_refused(server, composed):
    serve_pages(server, "montgomery", MONTGOMERY)
    config = composed("montgomery")
    config.files.pages.pages.CXR_png.files = 138
    with pytest.raises(DownloadError, match=r"lists 3 files \*\.png, expected are 138.*CXR_png\.files=null"):
        download.download(config)


def test_too_little_disk_says_how_much_is_needed_and_where(composed, tmp_path, disk):
    disk(free=1_500_000_000)
    config = composed("montgomery", "take=archive")
    config.files.archive.bytes, config.files.archive.unpacked = 1_000_000_000, 1_200_000_000
    with pytest.raises(DownloadError, match=rf"{tmp_path / 'data'} needs 2\.2 GB.*has 1\.5 GB free"):
        download.download(config)


@pytest.mark.parametrize(("keep", "needed"), [("false", "5.0 GB"), ("true", "8.0 GB")])
def test_archives_that_go_once_unpacked_need_less_disk(composed, disk, keep, needed):
    disk(free=0)
    config = composed("chestxray14", "take=[images_001,images_002,images_003,images_004]", f"keep={keep}")
    for key in config.take:
        config.files[key].bytes = config.files[key].unpacked = 1_000_000_000
    with pytest.raises(DownloadError, match=f"needs {needed}"):
        download.download(config)


def test_what_has_come_needs_no_more_disk(server, composed, tmp_path, disk):
    (tmp_path / "data" / "download").mkdir(parents=True)
    (tmp_path / "data" / "download" / "NLM-MontgomeryCXRSet.zip.part").write_bytes(b"x" * 1_000_000)
    disk(free=0)
    config = composed("montgomery", "take=archive")
    config.files.archive.bytes, config.files.archive.unpacked = 3_000_000, 4_000_000
    with pytest.raises(DownloadError, match=r"needs 6\.0 MB"):
        download.download(config)


def test_a_full_disk_is_said(server, composed, monkeypatch):
    serve_pages(server, "montgomery", MONTGOMERY)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "fetch", full)
    with pytest.raises(DownloadError, match=r"no space is left.*run again to go on"):
        download.download(composed("montgomery"))


def test_a_folder_that_cannot_be_made_is_an_error(composed, tmp_path):
    (tmp_path / "data").write_bytes(b"a file")
    with pytest.raises(DownloadError, match="root must name a folder that can be written"):
        download.download(composed("montgomery"))
    with pytest.raises(DownloadError, match=r"where to\? root=DIR"):
        download.download(composed("montgomery", "root=???"))


def test_kept_archives_stay(server, composed, tmp_path):
    serve(server, "NLM-MontgomeryCXRSet.zip", zipped(inside("MontgomerySet", MONTGOMERY)))
    download.download(composed("montgomery", "take=archive", "keep=true"))
    assert (tmp_path / "data" / "download" / "NLM-MontgomeryCXRSet.zip").exists()


def test_an_archive_put_there_by_hand_is_unpacked(composed, tmp_path):
    (tmp_path / "data" / "download").mkdir(parents=True)
    archive = tmp_path / "data" / "download" / "NLM-MontgomeryCXRSet.zip"
    archive.write_bytes(zipped(inside("MontgomerySet", MONTGOMERY)))
    download.download(composed("montgomery", "take=archive"))
    assert len(read("montgomery", tmp_path / "data")) == 3


def test_an_unknown_part_names_those_that_there_are(composed):
    with pytest.raises(DownloadError, match=r"take=zip: there are pages, archive"):
        download.download(composed("montgomery", "take=zip"))


def test_a_stop_in_the_middle_of_pages_shows_no_half_dataset(server, composed, tmp_path):
    resources = serve_pages(server, "montgomery", MONTGOMERY)
    third = resources["CXR_png/MCUCXR_0003_1.png"]
    third.answers = [(404, {})]
    with pytest.raises(DownloadError, match="404"):
        download.download(composed("montgomery"))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["download"]
    download.download(composed("montgomery"))
    assert [len(resource.requests) for resource in resources.values()] == [1, 1, 2, 1, 1]


def test_the_shipped_configuration_is_complete(composed):
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        configs = {
            n: compose("download", [f"download={n}", "root=x"]) for n in ("montgomery", "shenzhen", "chestxray14")
        }
    archives = [file for key, file in configs["chestxray14"].files.items() if key.startswith("images_")]
    assert [file.into for file in archives] == [f"images_{number:03}" for number in range(1, 13)]
    assert len({file.url for file in archives}) == len({file.checksum for file in archives}) == 12
    assert configs["montgomery"].files.pages.pages.CXR_png.files == montgomery.IMAGES
    assert configs["shenzhen"].files.pages.pages.CXR_png.files == shenzhen.IMAGES


@contextmanager
def running(*arguments: str, **more):
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "lungdet.data.download", *arguments]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        # A shell's background job, as the tests may be, hands on that Ctrl-C is to be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **more,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_command_stops_at_ctrl_c_and_goes_on_when_run_again(server, tmp_path):
    archive = zipped(inside("MontgomerySet", MONTGOMERY) | {"MontgomerySet/filler": BODY})
    hold = threading.Event()
    resource = serve(server, "a.zip", archive, cuts=[400_000], hold=hold)
    arguments = [
        "montgomery", "take=archive", f"root={tmp_path / 'data'}", f"files.archive.url={server.address}/a.zip",
        "files.archive.bytes=null", "timeout=600",
    ]  # fmt: skip
    with running(*arguments, cwd=tmp_path) as process:
        part = tmp_path / "data" / "download" / "NLM-MontgomeryCXRSet.zip.part"
        while not (part.exists() and part.stat().st_size > 300_000):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=600)[0]
    hold.set()
    assert process.returncode == 130, said
    assert "run again to go on" in said
    assert "Traceback" not in said
    came = part.stat().st_size
    resource.hold = None
    with running(*arguments, cwd=tmp_path) as process:
        said = process.communicate(timeout=600)[0]
    assert process.returncode == 0, said
    assert resource.requests == [None, f"bytes={came}-"]
    assert len(read("montgomery", tmp_path / "data")) == 3
    assert "Two public chest X-ray datasets" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_the_command_without_a_dataset_says_which_there_are(tmp_path):
    with running("root=x", cwd=tmp_path) as process:
        said = process.communicate(timeout=600)[0]
    assert process.returncode == 1
    assert "Name one dataset: chestxray14, montgomery, shenzhen" in said
