"""A user's own table: what is read, and that every mistake is named with file, line, column and value."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from lungdet.data.errors import DatasetError
from lungdet.data.manifest import COLUMNS
from lungdet.data.table import TableDataModule, read


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((8, 8), 90, np.uint8))
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a.png", "b.jpg", "sub/c.png", "sub/a.png"):
        image(tmp_path / name)
    return tmp_path


def csv(folder: Path, *lines: str, encoding: str = "utf-8", end: str = "\n") -> Path:
    path = folder / "my.csv"
    path.write_bytes((end.join(lines) + end).encode(encoding))
    return path


def messages(caplog) -> list[str]:
    return [record.message for record in caplog.records]


def test_two_columns_are_enough_and_what_is_not_said_is_unknown(folder, caplog):
    path = csv(folder, "path,abnormal", "a.png,1", "b.jpg,0", "sub/c.png,")
    with caplog.at_level(logging.INFO):
        table = read(path, folder)
    assert list(table.columns) == list(COLUMNS)
    assert table["image_id"].tolist() == ["table/a", "table/b", "table/c"]
    assert table["patient_id"].is_unique
    assert table["abnormal"].fillna(-1).tolist() == [1, 0, -1]
    unknown = [
        column for column in COLUMNS if column not in ("image_id", "dataset", "path", "patient_id", "visit", "abnormal")
    ]
    assert table[unknown].isna().all(axis=None)
    assert any("no column patient_id" in line and "can't be seen" in line for line in messages(caplog))


def test_every_column_is_read(folder, caplog):
    path = csv(
        folder,
        "path,abnormal,patient_id,visit,age,sex,view,dataset,effusion,tuberculosis",
        "a.png,1.0,7,20,64.5,male,pa,clinic,1,",
        "b.jpg,0,7,10,64,M,AP,clinic,0,0",
        "sub\\c.png,1,7,,,f,,,,1".replace("7,,", "7,1,"),
    )
    with caplog.at_level(logging.INFO):
        table = read(path, folder)
    assert table["image_id"].tolist() == ["clinic/a", "clinic/b", "table/c"]
    assert table["patient_id"].tolist() == ["clinic/7", "clinic/7", "table/7"]
    assert table["visit"].tolist() == [1, 0, 0]
    assert table["age"].tolist()[:2] == [64.5, 64]
    assert table["sex"].tolist() == ["M", "M", "F"]
    assert table["view"].tolist()[:2] == ["PA", "AP"]
    assert table["effusion"].fillna(-1).tolist() == [1, 0, -1]
    assert table["tuberculosis"].fillna(-1).tolist() == [-1, 0, 1]
    assert table["path"].tolist() == ["a.png", "b.jpg", "sub/c.png"]
    assert not messages(caplog)


def test_visits_without_a_column_are_the_order_of_the_rows(folder):
    path = csv(folder, "path,abnormal,patient_id", "a.png,1,x", "b.jpg,0,y", "sub/c.png,1,x")
    assert read(path, folder)["visit"].tolist() == [0, 0, 1]


def test_one_stem_in_two_folders_keeps_the_folder_and_the_others_do_not(folder):
    path = csv(folder, "path,abnormal", "a.png,1", "b.jpg,0", "sub/a.png,1", "./sub/c.png,0")
    assert read(path, folder)["image_id"].tolist() == ["table/a", "table/b", "table/sub/a", "table/c"]


def test_the_first_bytes_line_ends_and_empty_lines_do_not_matter(folder):
    path = csv(folder, "path , abnormal", "", " a.png,1 ", ",", "b.jpg,0", encoding="utf-8-sig", end="\r\n")
    assert read(path, folder)["abnormal"].tolist() == [1, 0]


def test_images_that_are_not_there_are_counted_and_listed(folder, caplog):
    path = csv(folder, "path,abnormal,patient_id", "gone.png,1,x", "a.png,1,x", "lost.png,0,y")
    with caplog.at_level(logging.INFO):
        table = read(path, folder)
    assert table["image_id"].tolist() == ["table/a"]
    assert table["visit"].tolist() == [1]
    assert messages(caplog) == ["table: 2 of 3 images are not there and are left out: gone.png, lost.png"]


def test_unknown_columns_are_ignored_with_a_hint_where_a_name_is_close(folder, caplog):
    path = csv(folder, "path,abnormal,patient_id,Efusion,comment", "a.png,1,x,1,")
    with caplog.at_level(logging.INFO):
        assert read(path, folder)["effusion"].isna().all()
    assert messages(caplog) == [
        f"table: {path} has columns that are not known and are ignored: Efusion (is effusion meant?), comment"
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,abnormal", "a.png,1"], r"my.csv: no column path; found file, abnormal"),
        (["x", "1"], r"no column path and no column abnormal; found x"),
        (["path;abnormal", "a.png;1"], r"separated by ';'; commas are needed"),
        (["path,abnormal"], "a header and no row"),
        ([""], "not a comma-separated table"),
        (
            ["path,abnormal", "a.png,1", "b.jpg,yes"],
            r"my.csv, line 3, column abnormal: 'yes'; a label is 0, 1 or empty",
        ),
        (["path,abnormal", "a.png,2"], r"line 2, column abnormal: '2'"),
        (["path,abnormal", "a.png,NA"], r"line 2, column abnormal: 'NA'"),
        (["path,abnormal,mass", "a.png,1,maybe"], r"line 2, column mass: 'maybe'"),
        (["path,abnormal,mass", "a.png,0,1"], r"line 2: abnormal is 0, but mass is 1"),
        (["path,abnormal,sex", "a.png,0,man"], r"line 2, column sex: 'man'; male, female, other, M, F, O"),
        (["path,abnormal,age", "a.png,0,old"], r"line 2, column age: 'old'; a number from 0 to 120"),
        (["path,abnormal,age", "a.png,0,414"], r"line 2, column age: '414'"),
        (
            ["path,abnormal,patient_id", "a.png,0,x", "", "b.jpg,0,"],
            r"line 4, column patient_id: ''; a value is needed",
        ),
        (["path,abnormal", ",0"], r"line 2, column path: ''; a value is needed"),
        (["path,abnormal,visit", "a.png,0,first"], r"line 2, column visit: 'first'; a number"),
        (
            ["path,abnormal,patient_id,visit", "a.png,0,x,1", "b.jpg,0,x,1.0"],
            r"line 3, column visit: '1.0'; the patient has",
        ),
        (["path,abnormal", "/etc/a.png,0"], r"line 2, column path: '/etc/a.png'; not inside data.root"),
        (["path,abnormal", "sub/../../a.png,0"], r"line 2, column path: .*not inside data.root"),
        (["path,abnormal", "C:\\a.png,0"], r"line 2, column path: .*not inside data.root"),
        (
            ["path,abnormal", "a.png,0", "./a.png,1"],
            r"line 3, column path: './a.png'; the image stands on an earlier line",
        ),
        (
            ["path,abnormal", "q/a.png,0", "q/a.jpg,1"],
            r"line 3, column path: 'q/a.jpg'; an earlier line differs in the suffix",
        ),
        (["path,abnormal", "gone.png,0"], r"none of the 1 images is in .*relative to data.root"),
        (["path,abnormal", "a.png,0,1,2"], r"lines have more cells than the header"),
        (["path,abnormal", "a.png,0", "b.jpg,0,1"], r"not a comma-separated table.*line 3"),
    ],
)
def test_mistakes_are_named(folder, lines, message):
    with pytest.raises(DatasetError, match=message):
        read(csv(folder, *lines), folder)


def test_no_file_no_folder_and_another_encoding_are_errors(folder):
    with pytest.raises(DatasetError, match=r"data.table=.*absent.csv: there is no such file"):
        read(folder / "absent.csv", folder)
    with pytest.raises(DatasetError, match="there is no folder"):
        read(csv(folder, "path,abnormal", "a.png,1"), folder / "absent")
    with pytest.raises(DatasetError, match="UTF-8"):
        read(csv(folder, "path,abnormal,view", "a.png,1,é", encoding="latin-1"), folder)


def test_the_root_is_the_tables_folder_unless_given(folder):
    path = csv(folder, "path,abnormal,dataset", "c.png,1,clinic", "a.png,0,")
    data = TableDataModule(table=path, root=folder / "sub", batch_size=4)
    assert len(data.read()) == 2
    assert data.roots() == {"clinic": folder / "sub", "table": folder / "sub"}
    data = TableDataModule(table=path)
    assert data.read()["image_id"].tolist() == ["table/a"]
    assert data.root == folder
    assert not data.patients_known
