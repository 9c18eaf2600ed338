"""A user's own table: what is read, and that every mistake is named with file, line, column and value."""

import logging
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from lungdet.data.manifest import COLUMNS
from lungdet.data.sources.table import TableDataModule
from lungdet.errors import DatasetError, InputError
from tests.data.sources.files import image


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a.png", "b.jpg", "sub/c.png", "sub/a.png"):
        image(tmp_path / name)
    return tmp_path


def csv(folder: Path, *lines: str, encoding: str = "utf-8", end: str = "\n") -> Path:
    path = folder / "my.csv"
    path.write_bytes((end.join(lines) + end).encode(encoding))
    return path


def read(csv: Path, root: Path, columns: dict | None = None, abnormal: Sequence[str] = ()) -> pd.DataFrame:
    return TableDataModule(root, table=csv, columns=columns, abnormal=abnormal).read()


def test_two_columns_are_enough_and_what_is_not_said_is_unknown(folder, caplog):
    path = csv(folder, "path,abnormal", "a.png,1", "b.jpg,0", "sub/c.png,")
    with caplog.at_level(logging.INFO):
        table = TableDataModule(folder, table=path).requested
    assert list(table.columns) == list(COLUMNS)
    assert table["image_id"].tolist() == ["table/a", "table/b", "table/c"]
    assert table["patient_id"].is_unique
    assert table["abnormal"].fillna(-1).tolist() == [1, 0, -1]
    unknown = [
        column for column in COLUMNS if column not in ("image_id", "dataset", "path", "patient_id", "visit", "abnormal")
    ]
    assert table[unknown].isna().all(axis=None)
    assert any("each of 3 counts as its own patient" in line and "can't be seen" in line for line in caplog.messages)


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
    assert not caplog.messages


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
    assert caplog.messages == ["table: 2 of 3 images are not there and are left out: gone.png, lost.png"]


def test_unknown_columns_are_ignored_with_a_hint_where_a_name_is_close(folder, caplog):
    path = csv(folder, "path,abnormal,patient_id,Efusion,comment", "a.png,1,x,1,")
    with caplog.at_level(logging.INFO):
        assert read(path, folder)["effusion"].isna().all()
    assert caplog.messages == [
        f"table: {path} has columns that are not known and are ignored: Efusion (is effusion meant?), comment"
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,abnormal", "a.png,1"], r"my.csv: no column path; found file, abnormal"),
        (["x", "1"], r"no column path and no column abnormal; found x"),
        (["path,abnormal"], "a header and no row"),
        ([""], "no table with a header, separated by ','"),
        (["path,abnormal, path", "a.png,1,b.jpg"], "my.csv: line 1: two columns are called path; rename or delete one"),
        (["path,abnormal,patient_id,visit", "a.png,1,x,inf"], "line 2, column visit: 'inf'; a number or nothing"),
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
        (
            ["path,abnormal,dataset", "a.png,0,north", "b.jpg,1,North"],
            r"column dataset: 'north' on line 2 and 'North' on line 3 seem to be one and the same",
        ),
        (["path,abnormal,dataset", "a.png,0,../../x"], r"line 2, column dataset: '../../x'; a name without slashes"),
        (["path,abnormal,dataset", "a.png,0,nan"], r"line 2, column dataset: 'nan'; nan on 1 line\(s\) name nobody"),
        (["path,abnormal,view", "a.png,0,unknown"], r"line 2, column view: 'unknown'; .*an empty cell means unknown"),
        (
            ["path,abnormal,patient_id", "a.png,0,1.23457E+11"],
            r"line 2, column patient_id: '1.23457E\+11'; rounded by a spreadsheet",
        ),
        (["sep=,", "path,abnormal", "a.png,2"], r"line 3, column abnormal: '2'"),
        (["sep=;", "path;abnormal", "a.png;2"], r"line 3, column abnormal: '2'"),
        (["", ",", "sep=;", "", "path;abnormal", "", "a.png;2"], r"line 7, column abnormal: '2'"),
        (["sep=§", "path§abnormal", "a.png§1"], r"my.csv: line 1: sep=§: one ASCII sign"),
        (["path;abnormal;age", "a.png;0;45,5"], r"line 2, column age: '45,5'; a number"),
        (["path;abnormal", "a.png;0;1;2"], r"Expected 2 fields in line 2, saw 4; a cell with ';' needs quotes"),
        (["path;abnormal;age, years", "a.png;0;45"], r"seem to be separated by ';': add the line sep=; above"),
        (["path|abnormal", "a.png|0"], r"seem to be separated by '\|': add the line sep=\| above the header"),
        (["path,abnormal", "gone.png,0"], r"none of the 1 images is in .*relative to data.root"),
        (["path,abnormal", "a.png,0,1,2"], r"Expected 2 fields in line 2, saw 4"),
        (["path,abnormal", "a.png,0", "b.jpg,0,1"], r"no table with a header.*Expected 2 fields in line 3, saw 3"),
    ],
)
def test_mistakes_are_named(folder, lines, message):
    with pytest.raises(DatasetError, match=message):
        read(csv(folder, *lines), folder)


@pytest.mark.parametrize(
    "two", [("1", "001"), ("1", "1.0"), ("A1", "a1"), ("p-1", "P 01"), ("１2", "12"), ("x_y", "x–y")]
)
def test_a_patient_written_in_two_ways_is_refused_with_both_lines(folder, two):
    path = csv(folder, "path,abnormal,patient_id", f"a.png,1,{two[0]}", "sub/c.png,1,other", f"b.jpg,0,{two[1]}")
    with pytest.raises(DatasetError) as caught:
        read(path, folder)
    assert f"column patient_id: {two[0]!r} on line 2 and {two[1]!r} on line 4 seem to be one" in str(caught.value)
    assert "number the patients anew if they are two" in str(caught.value)


@pytest.mark.parametrize("two", [("Mu\u0308ller", "M\u00fcller"), ("7", "7\u200b"), ("a b", "\ufeffa\u00a0 b")])
def test_what_nobody_can_see_makes_no_other_patient(folder, two):
    path = csv(folder, "path,abnormal,patient_id,dataset", f"a.png,1,{two[0]},{two[1]}", f"b.jpg,0,{two[1]},{two[0]}")
    table = read(path, folder)
    assert table["patient_id"].nunique() == table["dataset"].nunique() == 1
    assert table["visit"].tolist() == [0, 1]


def test_ids_that_tell_people_apart_are_taken(folder):
    lines = ["a.png,1,1-23,north", "b.jpg,0,12-3,north", "sub/c.png,1,01,south", "sub/a.png,1,1,north"]
    table = read(csv(folder, "path,abnormal,patient_id,dataset", *lines), folder)
    assert table["patient_id"].tolist() == ["north/1-23", "north/12-3", "south/01", "north/1"]


@pytest.mark.parametrize("nobody", ["nan", "NULL", "unknown", "-", "N/A", "?", "-1"])
def test_a_word_for_no_patient_is_no_patient(folder, nobody):
    path = csv(folder, "path,abnormal,patient_id", "a.png,1,7", f"b.jpg,0,{nobody}", f"sub/c.png,1,{nobody}")
    with pytest.raises(DatasetError) as caught:
        read(path, folder)
    assert f"line 3, column patient_id: {nobody!r}; {nobody} on 2 line(s) name nobody" in str(caught.value)


@pytest.mark.parametrize(("written", "named"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_an_umlaut_is_the_same_composed_and_decomposed(folder, written, named):
    name = "Lunge-ü.png"
    image(folder / unicodedata.normalize(written, name)).write_bytes(image(folder / "plain.png").read_bytes())
    table = read(csv(folder, "path,abnormal", f"{unicodedata.normalize(named, name)},1"), folder)
    assert table["path"].tolist() == [unicodedata.normalize(written, name)]
    assert table["image_id"].tolist() == [unicodedata.normalize("NFC", "table/Lunge-ü")]


@pytest.mark.parametrize("sign", [",", ";", "\t"])
@pytest.mark.parametrize("excels", [True, False])
def test_cells_are_separated_as_the_first_line_says(folder, sign, excels):
    lines = [sign.join(row) for row in (["path", "abnormal", "view"], ["a.png", "1", "PA"], ["b.jpg", "0", "AP"])]
    table = read(csv(folder, *([f"sep={sign}"] if excels else []), *lines), folder)
    assert table[["abnormal", "view"]].to_numpy().tolist() == [[1, "PA"], [0, "AP"]]


def test_excels_first_line_is_no_header(folder):
    assert len(read(csv(folder, "sep=,", "path,abnormal", "a.png,1", encoding="utf-8-sig", end="\r\n"), folder)) == 1


def test_no_file_no_folder_and_another_encoding_are_errors(folder):
    with pytest.raises(DatasetError, match=r"data.table=.*absent.csv: there is no such file"):
        read(folder / "absent.csv", folder)
    with pytest.raises(DatasetError, match="there is no folder"):
        read(csv(folder, "path,abnormal", "a.png,1"), folder / "absent")
    with pytest.raises(DatasetError, match="UTF-8"):
        read(csv(folder, "path,abnormal,view", "a.png,1,é", encoding="latin-1"), folder)
    with pytest.raises(DatasetError, match=r"my\.csv: line 1 is no text in UTF-8; save the table anew as CSV in UTF-8"):
        read(csv(folder, "path,abnormal", "a.png,1", encoding="utf-16"), folder)


def test_the_root_is_the_tables_folder_unless_given(folder):
    path = csv(folder, "path,abnormal,dataset", "c.png,1,clinic", "a.png,0,")
    data = TableDataModule(table=path, root=folder / "sub", batch_size=4)
    assert len(data.read()) == 2
    assert data.roots() == {"clinic": folder / "sub", "table": folder / "sub"}
    data = TableDataModule(table=path)
    assert data.read()["image_id"].tolist() == ["table/a"]
    assert data.root == folder
    assert not data.patients_known


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("limit", value) for value in ("10%", 0, 0.1, True)),
        *(("num_workers", value) for value in (-1, "all", 1.5)),
        *(("batch_size", value) for value in (0, None, 32.0, "32x")),
        *(("visits", 0), ("folds", 1), ("folds", "five"), ("fold", -1), ("fold", "a")),
        *(("split_seed", value) for value in (-1, 1 << 32, "a", None)),
        *(("fractions", value) for value in (0.7, None, [0.7, 0.3], ["70%", "15%", "15%"], [0.7, 0.2, 0.2])),
        *(("train_fraction", value) for value in ("10%", None)),
        *(("train_prevalence", "10%"), ("image_size", 0), ("image_size", "large"), ("bits", "12bit")),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_key(folder, key, value):
    with pytest.raises(InputError) as caught:
        TableDataModule(table=folder / "my.csv", **{key: value})
    assert f"data.{key}={value}: " in str(caught.value)


def test_a_folder_that_may_not_be_read_is_told_plainly(folder, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    data = TableDataModule(table=csv(folder, "path,abnormal", "a.png,1"), store=folder / "store")
    monkeypatch.setattr(Path, "is_file", refused)
    with pytest.raises(DatasetError, match=r"table: .*Permission denied: '.*my.csv'"):
        data.prepare_data()


def test_columns_of_other_names_labels_in_words_and_absolute_paths_are_read_as_they_lie(folder, caplog):
    rows = [f"{folder / 'a.png'},Pneumonia,1", f"{folder / 'sub/c.png'},none,2", f"{folder / 'b.jpg'},TB,3"]
    path = csv(folder / "sub", "file,finding,person", *rows)
    with pytest.raises(
        DatasetError, match=r"no column path and no column abnormal.*'data.columns={path:file,abnormal:finding}'"
    ):
        read(path, folder)
    columns = {"path": "file", "abnormal": "finding", "patient_id": "person"}
    with pytest.raises(DatasetError, match=r"'Pneumonia'; a label is 0, 1.*'data.abnormal=\[Pneumonia, TB, none\]'"):
        read(path, folder, columns)
    with pytest.raises(DatasetError, match=r"data.abnormal: copd is in no cell of .*'Pneumonia' \(1\)"):
        read(path, folder, columns, ["copd"])
    data = TableDataModule(table=path, columns=columns, abnormal=["pneumonia", "tb"], store=folder / "store")
    with caplog.at_level(logging.INFO):
        table = data.read()
    assert data.root == folder
    assert table["path"].tolist() == ["a.png", "sub/c.png", "b.jpg"]
    assert table["abnormal"].tolist() == [1, 0, 1]
    assert "table: 1 'none' are normal" in caplog.messages
    with pytest.raises(DatasetError, match=r"data.columns.path=flie: .* no such column; did you mean file\?"):
        read(path, folder, {"path": "flie"})


def test_the_tables_own_split_is_taken_where_it_is_asked_for(folder, caplog):
    path = csv(folder, "path,abnormal,split", "a.png,1,train", "b.jpg,0,val", "sub/c.png,0,test")
    read(path, folder)
    assert any("split (data.split=file takes it)" in line for line in caplog.messages)
    data = TableDataModule(table=path, split="file", store=folder / "store")
    split = data.plan.draw(data.read(), data.official, data.own_split)
    assert [split.images(part).tolist() for part in ("train", "val", "test")] == [["table/a"], ["table/b"], ["table/c"]]
    bare = TableDataModule(table=csv(folder, "path,abnormal", "a.png,1"), split="file", store=folder / "store")
    with pytest.raises(InputError, match=r"set data.split_file=FILE, or give .*my.csv a column split"):
        bare.plan.draw(bare.read(), bare.official, bare.own_split)
