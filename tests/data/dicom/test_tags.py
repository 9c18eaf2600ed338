"""Patients, visits, ages, sexes and views are read from tags, a user's own columns first; ids become pseudonyms."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lungdet.data.check import inspection
from lungdet.data.dicom.tags import survey
from lungdet.data.sources.folder import FolderDataModule
from lungdet.data.sources.table import TableDataModule
from lungdet.errors import InputError
from lungdet.inference import cases
from tests.dicom_files import PERSON, write

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)
EXPOSURES = {
    "normal/1.2.3": {"PatientID": "B", "StudyDate": "20200301", "PatientAge": "045Y", "PatientSex": "F"},
    "normal/1.2.4": {"PatientID": "A", "StudyDate": "20190101", "PatientAge": "010M", "PatientSex": "M"},
    "abnormal/c.dcm": {"PatientID": "B", "StudyDate": "20200229", "PatientBirthDate": "19600301", "ViewPosition": "AP"},
    "abnormal/d": {"PatientID": "anonymous", "PatientAge": "999Y", "PatientSex": "X", "ViewPosition": None},
}
"""Two patients, of which one has two visits, the later first; and somebody."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clinic")
    for name, tags in EXPOSURES.items():
        write(root / name, PIXELS, **{**PERSON, "StudyDate": None, "PatientBirthDate": None, **tags})
    (root / "normal" / "DICOMDIR").write_bytes((root / "normal" / "1.2.3").read_bytes())
    (root / "key").write_text("0123456789abcdef\n")
    return root


def test_a_folder_is_described_by_its_tags(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        data = FolderDataModule(root)
        table = data.read().set_index("image_id")
    assert [*table.index] == [f"folder/{name}" for name in ("abnormal/c", "abnormal/d", "normal/1.2.3", "normal/1.2.4")]
    assert [*table["patient_id"]] == [
        "folder/abnormal/c",
        "folder/abnormal/d",
        "folder/abnormal/c",
        "folder/normal/1.2.4",
    ]
    assert [*table["visit"]] == [0, 0, 1, 0]
    np.testing.assert_allclose(table["age"], [59, np.nan, 45, 10 / 12])
    assert table["sex"].fillna("").tolist() == ["", "", "F", "M"]
    assert table["view"].fillna("").tolist() == ["AP", "", "PA", "PA"]
    assert (
        "4 DICOM files of 2 patients; 1 without (0010,0020) PatientID; 1 without (0008,0020) StudyDate" in caplog.text
    )
    assert "1 DICOM files have no (0010,0020) PatientID that names somebody" in caplog.text
    assert data.patients_known


def test_a_tables_own_columns_are_taken_and_contradictions_counted(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def read(*lines: str, key: Path | None = None) -> pd.DataFrame:
        caplog.clear()
        (root / "t.csv").write_text("\n".join(lines))
        with caplog.at_level(logging.INFO):
            return TableDataModule(root, table=root / "t.csv", pseudonymize=key).read()

    paths = [*EXPOSURES]
    table = read("path,abnormal,sex,age", *(f"{path},1,F,45" for path in paths))
    assert table["patient_id"].tolist() == ["table/1.2.3", "table/1.2.4", "table/1.2.3", "table/d"]
    assert table["visit"].tolist() == [1, 0, 0, 0]
    assert {*table["sex"]} == {"F"}
    assert "the table is taken: sex (1 images), age (2 images)" in caplog.text
    table = read("path,abnormal,patient_id,visit", *(f"{path},1,P{i // 2},{i}" for i, path in enumerate(paths)))
    assert table["patient_id"].tolist() == ["table/P0", "table/P0", "table/P1", "table/P1"]
    assert table["visit"].tolist() == [0, 1, 0, 1]
    assert table["age"].tolist()[0] == 45
    assert "the table is taken: patient_id (2 patients are several in the other)" in caplog.text
    (root / "another").write_bytes(b"1" * 16)
    zeros, ones = (read("path,abnormal,patient_id", f"{paths[0]},1,B", key=root / key) for key in ("key", "another"))
    assert zeros["patient_id"][0] != ones["patient_id"][0]
    tagged = read("path,abnormal", f"{paths[2]},1", key=root / "key")
    assert tagged["patient_id"].tolist() == zeros["patient_id"].tolist()  # the same wherever the key is
    assert len(tagged["patient_id"][0]) == len("table/") + 16


def test_a_key_is_a_file_with_a_secret(root: Path) -> None:
    data = FolderDataModule(root, pseudonymize=root / "key", store=root / "store", image_size=8)
    assert data.requested["patient_id"].nunique() == 3
    assert not data.requested["patient_id"].str.contains("normal/1").any()
    (root / "short").write_text("secret")
    for name, message in (("short", "at least 16 bytes are needed"), ("nix", "there is no such file")):
        with pytest.raises(InputError, match=f"data.pseudonymize=.*{name}: {message}; python -c"):
            TableDataModule(table=root / "t.csv", pseudonymize=root / name)


def test_visits_of_new_images_are_by_their_tags(root: Path, tmp_path: Path) -> None:
    table = cases.read(root, series=True).set_index("image_id")
    earlier, later = (str(root / name) for name in ("abnormal/c.dcm", "normal/1.2.3"))
    assert table["patient_id"][earlier] == table["patient_id"][later]
    assert table["patient_id"].nunique() == 3
    assert (table["visit"][earlier], table["visit"][later], table["age"][later]) == (0, 1, 45)
    (root / "own.csv").write_text(f"path,patient_id\n{earlier},1\n{later},2\n")
    assert cases.read(root / "own.csv", series=True)["visit"].tolist() == [0, 0]
    write(tmp_path / "a", PIXELS)
    with pytest.raises(InputError, match="whose each image is has to be known: give a table"):
        cases.read(tmp_path, series=True)


def test_what_is_not_dicom_or_damaged_has_no_tags(root: Path, tmp_path: Path) -> None:
    names = ["a.png", "b.dcm", "c", "d"]
    images = pd.DataFrame({"image_id": names, "dataset": "x"})
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    assert survey([tmp_path / name for name in names], images) is None
    (tmp_path / "b.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    write(tmp_path / "c", PIXELS, PatientID="7", StudyDate="20201340", SeriesNumber=None)
    table = survey([tmp_path / name for name in names], images)
    assert table["patient_id"].fillna("").tolist() == ["", "", "c", ""]
    assert table["time"].isna().all()


def test_a_check_tells_what_files_are(root: Path) -> None:
    assert inspection._header(str(root / "normal/1.2.3")) == ("DICOM", "MONOCHROME2", 8, 8, 8)
