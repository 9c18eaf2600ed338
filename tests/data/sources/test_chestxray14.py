"""ChestX-ray14's reader: tables in every form, image folders, lists and boxes."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lungdet.data.manifest import COLUMNS
from lungdet.data.sources.chestxray14 import ChestXray14DataModule
from lungdet.data.sources.chestxray14_tables import boxes, read_table
from lungdet.data.store.images import RESIZES, square
from lungdet.data.store.store import StoreError
from lungdet.errors import DatasetError
from lungdet.findings import UnknownFindingError
from tests.data.sources.files import image

HEADER_2017 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


ROWS_2017 = [
    "00000001_000.png,Cardiomegaly,000,00000001,058Y,M,PA,2682,2749,0.143,0.143",
    "00000001_001.png,Cardiomegaly|Emphysema,001,00000001,414Y,M,PA,2894,2729,0.143,0.143",
    "00000002_000.png,No Finding,000,00000002,018M,F,AP,2500,2048,0.168,0.168",
    "00000003_000.png,Hernia,000,00000003,001D,F,PA,2582,2991,0.143,0.143",
]


HEADER_2020 = HEADER_2017.rstrip(",")


# In another order than the file names, and with the first patient's images the other way round in time.
ROWS_2020 = [
    "00000002_000.png,No Finding,0,2,1,F,AP,2500,2048,0.168,0.168",
    "00000001_001.png,Cardiomegaly|Emphysema,0,1,57,M,PA,2894,2729,0.143,0.143",
    "00000001_000.png,Cardiomegaly,1,1,58,M,PA,2682,2749,0.143,0.143",
    "00000003_000.png,Hernia,0,3,33,F,PA,2582,2991,0.143,0.143",
]


def dataset(
    root: Path, images=("images/00000001_000.png", "images/00000001_001.png", "images/00000002_000.png")
) -> Path:
    root.mkdir(exist_ok=True)
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join([HEADER_2020, *ROWS_2020]) + "\n")
    (root / "Data_Entry_2017.csv").write_bytes("\r\n".join([HEADER_2017, *ROWS_2017]).encode() + b"\r\n")
    for name in images:
        image(root / name)
    return root


def read(root: Path, release: int = 2020) -> pd.DataFrame:
    return ChestXray14DataModule(root, release=release).read()


def by_stem(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index(table["image_id"].str.removeprefix("chestxray14/"))


def test_a_table_becomes_a_manifest_sorted_by_image(tmp_path):
    table = read_table(dataset(tmp_path))
    assert list(table.columns) == list(COLUMNS)
    assert list(table["image_id"]) == [
        f"chestxray14/{s}" for s in ("00000001_000", "00000001_001", "00000002_000", "00000003_000")
    ]
    first = table.iloc[0]
    assert (first["patient_id"], first["path"]) == ("chestxray14/00000001", "images/00000001_000.png")
    assert (first["age"], first["sex"], first["view"], first["dataset"]) == (58, "M", "PA", "chestxray14")
    assert (first["cardiomegaly"], first["emphysema"], first["abnormal"]) == (1, 0, 1)
    assert np.isnan(first["tuberculosis"])
    assert table["abnormal"].tolist() == [1, 1, 0, 1]


def test_visits_follow_the_chosen_releases_follow_up_number(tmp_path):
    root = dataset(tmp_path)
    assert by_stem(read_table(root, 2020))["visit"]["00000001_001"] == 0
    assert by_stem(read_table(root, 2017))["visit"]["00000001_001"] == 1


def test_the_releases_agree_on_patients_whatever_the_numbers_look_like(tmp_path):
    root = dataset(tmp_path)
    assert read_table(root, 2020)["patient_id"].equals(read_table(root, 2017)["patient_id"])


def test_ages_are_read_in_years_months_and_days_and_impossible_ones_are_unknown(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        ages = by_stem(read_table(dataset(tmp_path), 2017))["age"]
    assert ages["00000001_000"] == 58
    assert ages["00000002_000"] == pytest.approx(1.5)
    assert ages["00000003_000"] == pytest.approx(1 / 365.25)
    assert np.isnan(ages["00000001_001"])
    assert any("1 ages" in line and ": 414Y" in line for line in caplog.messages)


@pytest.mark.parametrize(
    "header",
    [
        HEADER_2020.replace(" ", "_"),
        HEADER_2020.replace("OriginalImage[Width,Height]", "OriginalImageWidth,OriginalImageHeight"),
        "\ufeff" + HEADER_2020.lower(),
    ],
)
def test_other_spellings_of_the_header_read_the_same(tmp_path, header):
    root = dataset(tmp_path)
    expected = read_table(root)
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join([header, *ROWS_2020]), encoding="utf-8")
    pd.testing.assert_frame_equal(read_table(root), expected)


@pytest.mark.parametrize(("header", "row"), [(",", ","), ("", ","), (",", "")])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_trailing_comma_and_either_line_end_read_the_same(tmp_path, header, row, end):
    root = dataset(tmp_path)
    expected = read_table(root)
    lines = [HEADER_2020 + header, *(line + row for line in ROWS_2020)]
    (root / "Data_Entry_2017_v2020.csv").write_bytes(end.join(lines).encode())
    pd.testing.assert_frame_equal(read_table(root), expected)


def test_a_table_shortened_by_the_user_keeps_the_visits(tmp_path):
    root = dataset(tmp_path)
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join([HEADER_2020, ROWS_2020[2]]))
    assert read(root)["visit"].tolist() == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Image Index,Finding Labels\na.png,Mass\n",
            "no column Follow-up #, Patient ID.*it has Image Index, Finding Labels",
        ),
        (HEADER_2020 + "\n", "there is a header and no row"),
        ("", "not a comma-separated table"),
    ],
)
def test_a_table_without_what_is_needed_is_refused_by_file(tmp_path, text, message):
    root = dataset(tmp_path)
    (root / "Data_Entry_2017_v2020.csv").write_text(text)
    with pytest.raises(DatasetError, match=rf"v2020\.csv: {message}"):
        read_table(root)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",0,2,1,F", ",first,2,1,F", "line 2, column Follow-up #: 'first' is no whole number"),
        (",0,3,33,F", ",0,,33,F", "line 5, column Patient ID: '' is no whole number"),
        ("00000003_000.png", "00000002_000.png", "column Image Index: 00000002_000.png stands on several rows"),
        (",1,1,58,", ",0,1,58,", r"patient_id \+ visit stands on 2 rows"),
        ("Hernia", "Cough", "column Finding Labels: unknown label 'Cough'"),
    ],
)
def test_bad_values_are_named(tmp_path, old, new, message):
    root = dataset(tmp_path)
    path = root / "Data_Entry_2017_v2020.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises((DatasetError, UnknownFindingError), match=rf"v2020\.csv.*{message}"):
        read_table(root)


def test_only_images_that_are_there_are_read_and_one_line_says_how_many(tmp_path, caplog):
    data = ChestXray14DataModule(dataset(tmp_path / "data"), store=tmp_path / "store")
    with caplog.at_level(logging.INFO):
        assert len(data.read()) == 3
        with pytest.raises(StoreError):  # its images are all black
            data.prepare_data()
    assert "chestxray14: 3 of 112,120 images are at hand" in caplog.messages


def test_both_layouts_are_read_at_once(tmp_path):
    root = dataset(
        tmp_path,
        ["images/00000001_000.png", "images_001/images/00000001_001.png", "images_012/images/00000002_000.png"],
    )
    table = by_stem(read(root))
    assert table["path"].tolist() == [
        "images/00000001_000.png",
        "images_001/images/00000001_001.png",
        "images_012/images/00000002_000.png",
    ]
    assert all((root / path).is_file() for path in table["path"])


def test_an_image_in_two_folders_is_an_error_that_names_both(tmp_path):
    root = dataset(tmp_path, ["images/00000001_000.png", "images_003/images/00000001_000.png"])
    with pytest.raises(DatasetError, match=r"images/00000001_000.png and images_003/images/00000001_000.png"):
        read(root)


def test_image_files_that_the_table_does_not_name_are_counted_and_listed(tmp_path, caplog):
    root = dataset(tmp_path, ["images/00000001_000.png", "images/zebra.png", "images/.DS_Store.png"])
    (root / "images" / "notes.txt").write_text("not an image")
    with caplog.at_level(logging.INFO):
        assert len(read(root)) == 1
    line = next(line for line in caplog.messages if "left out" in line)
    assert "2 image files are not in Data_Entry_2017_v2020.csv" in line
    assert "images/zebra.png" in line
    assert "notes.txt" not in line


def test_images_of_which_none_is_in_the_table_are_an_error(tmp_path):
    with pytest.raises(DatasetError, match=r"none of the 1 images in .* is in Data_Entry_2017_v2020.csv"):
        read(dataset(tmp_path, ["images/zebra.png"]))


def test_no_folder_an_empty_one_and_one_without_images_are_errors_that_say_what_is_expected(tmp_path):
    with pytest.raises(DatasetError, match=r"no folder .*absent.*images/\*.png"):
        read(tmp_path / "absent")
    with pytest.raises(DatasetError, match=r"is empty.*images/\*.png"):
        read(tmp_path)
    with pytest.raises(DatasetError, match=r"no image in .*images/\*.png"):
        read(dataset(tmp_path, []))


def test_a_missing_release_is_named_with_the_one_that_is_there(tmp_path):
    root = dataset(tmp_path)
    (root / "Data_Entry_2017_v2020.csv").unlink()
    with pytest.raises(DatasetError, match=r"no table Data_Entry_2017_v2020.csv .*data.release=2017"):
        read(root)
    (root / "Data_Entry_2017.csv").unlink()
    with pytest.raises(DatasetError, match=r"Expected there: Data_Entry_2017_v2020.csv"):
        read(root)
    with pytest.raises(DatasetError, match=r"data.release=2019"):
        read(root, 2019)


def test_the_official_lists_are_read_in_any_form(tmp_path):
    root = dataset(tmp_path)
    (root / "train_val_list.txt").write_bytes(b"00000001_000.png\r\nimages_006/00000001_001.png\r\n\r\n")
    (root / "test_list.txt").write_bytes(b"images_001\\images\\00000002_000.png\n00000003_000.png")
    assert ChestXray14DataModule(root).official().to_dict() == {
        "chestxray14/00000001_000": "train_val",
        "chestxray14/00000001_001": "train_val",
        "chestxray14/00000002_000": "test",
        "chestxray14/00000003_000": "test",
    }


def test_a_name_in_both_lists_and_a_missing_list_are_errors(tmp_path):
    root = dataset(tmp_path)
    (root / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png")
    with pytest.raises(DatasetError, match=r"there is no test_list.txt"):
        ChestXray14DataModule(root).official()
    (root / "test_list.txt").write_text("images/00000001_001.png")
    with pytest.raises(DatasetError, match=r"1 images are in both train_val_list.txt and test_list.txt.*00000001_001"):
        ChestXray14DataModule(root).official()
    (root / "test_list.txt").write_bytes("ä.png".encode("latin-1"))  # names none of its images
    assert len(ChestXray14DataModule(root).official()) == 3


def test_boxes_have_our_names_and_six_columns(tmp_path):
    root = dataset(tmp_path)
    (root / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "00000001_000.png,Infiltrate,225.5,547,86.75,79.25\n"
        "00000001_000.png,Atelectasis,686,131,185,313\n"
    )
    table = boxes(root)
    assert list(table.columns) == ["image_id", "finding", "x", "y", "width", "height"]
    assert table.iloc[0].tolist() == ["chestxray14/00000001_000", "infiltration", 225.5, 547, 86.75, 79.25]
    assert table["finding"].tolist() == ["infiltration", "atelectasis"]


def test_a_box_lies_where_its_pixels_went(tmp_path):
    """Pixels of the original that are bright inside a box are bright inside its square, however it is resized."""
    (tmp_path / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "a.png,Infiltrate,512.0,256.0,256.0,128.0,,,\n"
        "a.png,Infiltrate,0.0,0.0,64.0,64.0,,,\n"
        "a.png,Mass,1000.4,1000.4,23.0,23.0,,,\n"
        "b.png,Mass,1,2,3,4,,,\n"
    )
    original = np.zeros((1024, 1024), np.uint8)
    original[256:384, 512:768] = original[:64, :64] = 255
    manifest = pd.DataFrame({"image_id": ["chestxray14/a", "chestxray14/c"]})
    for resize in RESIZES:
        data = ChestXray14DataModule(tmp_path, image_size=64, resize=resize)
        ((name, known),) = data.regions(manifest).items()
        assert (name, [*known.findings], known.lungs) == ("chestxray14/a", ["infiltration", "mass"], None)
        np.testing.assert_array_equal(known.findings["infiltration"], square(original, data.settings)[0] > 127)
        rows, columns = np.nonzero(known.findings["mass"])
        assert (rows.min(), columns.min()) == (63, 63)
    assert ChestXray14DataModule(tmp_path / "nowhere").regions(manifest) == {}


def test_boxes_that_are_missing_or_no_numbers_are_errors(tmp_path):
    root = dataset(tmp_path)
    with pytest.raises(DatasetError, match=r"no BBox_List_2017.csv"):
        boxes(root)
    (root / "BBox_List_2017.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Mass,1,2,wide,4\n")
    with pytest.raises(DatasetError, match=r"line 2: .*wide"):
        boxes(root)
