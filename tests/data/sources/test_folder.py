"""A folder for each class is read as it lies, and what is missing is named."""

import errno
import logging
import os
from pathlib import Path

import pytest

from lungdet.data.sources.folder import FolderDataModule
from lungdet.errors import DatasetError
from tests.data.sources.files import image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("normal/a.png", "normal/2024/b.jpg", "tb/a.png", "copd/deep/er/c.png", "normal/notes.txt"):
        image(tmp_path / name) if name[-1] == "g" else (tmp_path / name).touch()
    return tmp_path


def test_folders_are_classes_and_nobody_is_known(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        data = FolderDataModule(folder, abnormal=["tb", "copd"], limit=3)
        table, images = data.read().set_index("image_id"), len(data.requested)
    assert table["abnormal"].to_dict() == {
        "folder/copd/deep/er/c": 1, "folder/normal/2024/b": 0, "folder/normal/a": 0, "folder/tb/a": 1,
    }  # fmt: skip
    assert table["patient_id"].is_unique
    assert "each of 4 counts as its own patient" in caplog.text
    assert "1 in copd, 2 in normal, 1 in tb; 1 other files are ignored" in caplog.text
    assert f"data.limit=3: {images} images are taken" in caplog.messages  # of no patients
    assert not data.patients_known
    assert data.roots() == {"folder": folder}


def test_what_worklists_have_drawn_and_what_is_hidden_is_no_radiograph_and_no_class(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = FolderDataModule(folder, abnormal=["tb"])
    expected = data.read()["image_id"].tolist()
    for name in ("w.csv.overlays/1-a.png", "tb/w.parquet.overlays/1-a.png", "tb/.cache/a.png", "tb/._a.png"):
        image(folder / name)
    with caplog.at_level(logging.INFO):
        assert data.read()["image_id"].tolist() == expected
    for place, name in ((folder, "w.csv.overlays"), (folder / "tb", "w.parquet.overlays")):
        assert f"{place}: left out, pictures of worklists: {name}" in caplog.messages


def test_what_is_not_read_is_named(folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    (folder / "tb" / "elsewhere").symlink_to(folder / "copd")
    (folder / "tb" / "gone.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "tb" / "pipe.png")
    data = FolderDataModule(folder, abnormal=["tb"])
    table = data.read()
    assert {path for path in table["path"] if path.startswith("tb")} == {"tb/a.png", "tb/gone.png"}
    assert f"{folder / 'tb'}: links to folders are not followed, and left out: elsewhere" in caplog.messages
    with monkeypatch.context() as patch:
        refused = PermissionError(errno.EACCES, "Permission denied", str(folder / "tb"))
        patch.setattr(os, "scandir", lambda _: (_ for _ in ()).throw(refused))
        with pytest.raises(DatasetError, match=r"folder: .*Permission denied.*/tb"):
            _ = data.requested
    (folder / "tb" / os.fsdecode(b"\xe9.png")).touch()
    with pytest.raises(DatasetError, match=r"xe9\.png': a name that is no text in UTF-8; rename the file"):
        data.read()


def test_folders_may_be_called_by_numbers(tmp_path: Path) -> None:
    for name in ("0/a.png", "1/b.png"):
        image(tmp_path / name)
    assert FolderDataModule(tmp_path, abnormal=[1]).read()["abnormal"].tolist() == [0, 1]


def test_folders_of_other_people_have_another_name(folder: Path) -> None:
    data = FolderDataModule(folder, abnormal=["tb"], dataset="Clinic B", store=folder.parent / "store", image_size=8)
    assert {*data.requested["dataset"]} == {"Clinic B"}
    assert {*data.requested["patient_id"]}.isdisjoint(FolderDataModule(folder, abnormal=["tb"]).read()["patient_id"])
    with pytest.raises(DatasetError, match=r"data\.dataset=\.\./x: a name of letters"):
        FolderDataModule(folder, dataset="../x")


@pytest.mark.parametrize(
    ("abnormal", "message"),
    [
        (["abnormal"], r"has no folder abnormal.*copd, normal, tb; 'data.abnormal=\[NAME\]'"),
        (["tbc"], r"has no folder tbc"),
        (["tb", "copd", "normal"], "folders of both classes are needed"),
        ([], "folders of both classes are needed"),
    ],
)
def test_a_class_that_is_not_there_is_named(folder: Path, abnormal: list[str], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        FolderDataModule(folder, abnormal=abnormal).read()
