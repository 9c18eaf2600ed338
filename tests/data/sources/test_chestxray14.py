"""ChestX-ray14's reader: tables in every form, image folders, lists and boxes, and the published tables themselves."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lungdet.data.manifest import COLUMNS
from lungdet.data.serving.series import Series
from lungdet.data.sources import chestxray14
from lungdet.data.sources.chestxray14 import ChestXray14DataModule, official, read, read_table, regions
from lungdet.data.sources.chestxray14_tables import boxes
from lungdet.data.store.images import RESIZES, Settings, square
from lungdet.data.store.store import StoreError
from lungdet.errors import DatasetError
from lungdet.findings import UnknownFindingError

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


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((8, 8), 90, np.uint8))
    return path


def dataset(
    root: Path, images=("images/00000001_000.png", "images/00000001_001.png", "images/00000002_000.png")
) -> Path:
    root.mkdir(exist_ok=True)
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join([HEADER_2020, *ROWS_2020]) + "\n")
    (root / "Data_Entry_2017.csv").write_bytes("\r\n".join([HEADER_2017, *ROWS_2017]).encode() + b"\r\n")
    for name in images:
        image(root / name)
    return root


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
    assert [
        r.message for r in caplog.records if "ages" in r.message and ": 414Y" in r.message and "1 ages" in r.message
    ]


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


def test_a_missing_column_is_named_with_those_found(tmp_path):
    root = dataset(tmp_path)
    (root / "Data_Entry_2017_v2020.csv").write_text("Image Index,Finding Labels\na.png,Mass\n")
    with pytest.raises(
        DatasetError, match=r"v2020.csv: no column Follow-up #, Patient ID.*it has Image Index, Finding Labels"
    ):
        read_table(root)


def test_a_table_without_rows_and_an_empty_file_are_errors(tmp_path):
    root = dataset(tmp_path)
    (root / "Data_Entry_2017_v2020.csv").write_text(HEADER_2020 + "\n")
    with pytest.raises(DatasetError, match=r"a header and no row"):
        read_table(root)
    (root / "Data_Entry_2017_v2020.csv").write_text("")
    with pytest.raises(DatasetError, match=r"not a comma-separated table"):
        read_table(root)


def test_an_unknown_label_is_an_error_that_names_file_and_column(tmp_path):
    root = dataset(tmp_path)
    text = (root / "Data_Entry_2017_v2020.csv").read_text().replace("Hernia", "Cough")
    (root / "Data_Entry_2017_v2020.csv").write_text(text)
    with pytest.raises(UnknownFindingError, match=r"v2020.csv, column Finding Labels: unknown label 'Cough'"):
        read_table(root)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",0,2,1,F", ",first,2,1,F", "line 2, column Follow-up #: 'first' is no whole number"),
        (",0,3,33,F", ",0,,33,F", "line 5, column Patient ID: '' is no whole number"),
        ("00000003_000.png", "00000002_000.png", "column Image Index: 00000002_000.png stands on several rows"),
        (",1,1,58,", ",0,1,58,", r"patient_id \+ visit stands on 2 rows"),
    ],
)
def test_bad_values_are_named(tmp_path, old, new, message):
    root = dataset(tmp_path)
    path = root / "Data_Entry_2017_v2020.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DatasetError, match=message):
        read_table(root)


def test_only_images_that_are_there_are_read_and_one_line_says_how_many(tmp_path, caplog):
    data = ChestXray14DataModule(dataset(tmp_path / "data"), store=tmp_path / "store")
    with caplog.at_level(logging.INFO):
        assert len(data.read()) == 3
        with pytest.raises(StoreError):  # its images are all black
            data.prepare_data()
    assert "chestxray14: 3 of 112,120 images are at hand" in [r.message for r in caplog.records]


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
    line = next(r.message for r in caplog.records if "left out" in r.message)
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
    assert official(root).to_dict() == {
        "chestxray14/00000001_000": "train_val",
        "chestxray14/00000001_001": "train_val",
        "chestxray14/00000002_000": "test",
        "chestxray14/00000003_000": "test",
    }


def test_a_name_in_both_lists_and_a_missing_list_are_errors(tmp_path):
    root = dataset(tmp_path)
    (root / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png")
    with pytest.raises(DatasetError, match=r"there is no test_list.txt"):
        official(root)
    (root / "test_list.txt").write_text("images/00000001_001.png")
    with pytest.raises(DatasetError, match=r"1 images are in both train_val_list.txt and test_list.txt.*00000001_001"):
        official(root)


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
        settings = Settings(size=64, resize=resize)
        ((name, known),) = regions(tmp_path, manifest, settings).items()
        assert (name, [*known.findings], known.lungs) == ("chestxray14/a", ["infiltration", "mass"], None)
        np.testing.assert_array_equal(known.findings["infiltration"], square(original, settings)[0] > 127)
        rows, columns = np.nonzero(known.findings["mass"])
        assert (rows.min(), columns.min()) == (63, 63)
    assert regions(tmp_path / "nowhere", manifest, settings) == {}


def test_boxes_that_are_missing_or_no_numbers_are_errors(tmp_path):
    root = dataset(tmp_path)
    with pytest.raises(DatasetError, match=r"no BBox_List_2017.csv"):
        boxes(root)
    (root / "BBox_List_2017.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Mass,1,2,wide,4\n")
    with pytest.raises(DatasetError, match=r"line 2: .*wide"):
        boxes(root)


def test_the_data_module_reads_its_release_and_its_lists(tmp_path):
    root = dataset(tmp_path)
    (root / "train_val_list.txt").write_text("00000001_000.png")
    (root / "test_list.txt").write_text("00000002_000.png")
    data = ChestXray14DataModule(root, release=2017, batch_size=4)
    assert by_stem(data.read())["visit"]["00000001_001"] == 1
    assert data.official().tolist() == ["train_val", "test"]
    assert data.roots() == {"chestxray14": root}


@pytest.fixture(scope="module")
def published(real_data):
    """By release the whole table, of 112,120 rows, as it is read."""
    return {release: read_table(real_data / "ChestX-ray14", release) for release in (2017, 2020)}


def test_the_published_tables_give_the_published_counts(published):
    for table in published.values():
        assert len(table) == chestxray14.IMAGES
        assert table["patient_id"].nunique() == chestxray14.PATIENTS
        assert table["tuberculosis"].isna().all()
        several = table.groupby("patient_id")["image_id"].transform("size") > 1
        assert several.sum() == 94_617
        # The follow-up number is the place among the patient's images: 0, 1, .. without a gap.
        assert (table.groupby("patient_id")["visit"].rank() - 1 == table["visit"]).all()


def test_the_two_releases_differ_in_labels_ages_and_orders_only(published):
    old, new = published[2017], published[2020]
    differs = {
        column: int((~(old[column].eq(new[column]) | (old[column].isna() & new[column].isna()))).sum())
        for column in old
    }
    findings = list(COLUMNS[8:-1])
    assert (old[findings].fillna(-1) != new[findings].fillna(-1)).any(axis=1).sum() == 181
    assert {column: count for column, count in differs.items() if count and column not in findings} == {
        "visit": 24_106,
        "age": 27_498,
        "abnormal": 51,
    }


def test_only_the_release_of_2020_is_in_order_of_time(published):
    def steps_back(table: pd.DataFrame, by: str) -> tuple[int, int]:
        ordered = table.sort_values(["patient_id", by])
        step = ordered.groupby("patient_id")["age"].diff()[ordered["patient_id"].duplicated()]
        return len(step), int((step < 0).sum())

    new, old = published[2020], published[2017]
    assert steps_back(new, "visit") == (81_315, 0)
    assert steps_back(new, "image_id") == (81_315, 2_034)
    assert steps_back(old, "visit") == steps_back(old, "image_id") == (81_315, 4_706)  # 16 ages are unknown
    suffix = new["image_id"].str[-3:].astype(int)
    assert (new["visit"] == suffix).sum() == 88_014
    assert (old["visit"] == suffix).all()


def test_the_official_lists_split_the_patients(real_data, published):
    table = published[2020]
    parts = table["image_id"].map(official(real_data / "ChestX-ray14"))
    assert parts.value_counts().to_dict() == {"train_val": 86_524, "test": 25_596}
    patients = table.groupby(parts)["patient_id"].unique()
    assert (len(patients["train_val"]), len(patients["test"])) == (28_008, 2_797)
    assert not set(patients["train_val"]) & set(patients["test"])
    abnormal = table.groupby(parts)["abnormal"].mean()
    assert (round(abnormal["test"], 3), round(abnormal["train_val"], 3)) == (0.615, 0.416)


def test_the_full_table_holds_as_many_series_of_each_length_as_its_patients_have_images(published):
    table = published[2020]
    series = Series(table, 200)
    patients = table.groupby("patient_id").size()
    assert (len(table), len(patients), patients.max()) == (112_120, 30_805, 184)
    lengths = np.bincount(series.length(np.arange(len(table))))
    assert lengths[1] == 30_805  # a first image each
    assert all(lengths[n] == (patients >= n).sum() for n in range(1, 185))
    assert round(100 * (series.earlier < 2).mean()) == 39
    of_longest = series.of(np.array([series.earlier.argmax()]))
    assert table["visit"].iloc[of_longest].is_monotonic_increasing
    assert table["patient_id"].iloc[of_longest].nunique() == 1
    capped = Series(table, 8).length(np.arange(len(table)))
    assert (capped.max(), (capped == 8).sum()) == (8, sum(lengths[8:]))


def test_boxes_of_the_images_at_hand_keep_their_size_and_place(real_data):
    root, settings = real_data / "ChestX-ray14", Settings(size=224)
    manifest, drawn = read(root), boxes(root)
    known, drawn = regions(root, manifest, settings), drawn[drawn["image_id"].isin(manifest["image_id"])]
    assert len(known) == drawn["image_id"].nunique() > 0
    assert sum(len(places.findings) for places in known.values()) == len(drawn)
    for box in drawn.itertuples():
        rows, columns = np.nonzero(known[box.image_id].findings[box.finding])
        edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * 1024 / 224
        np.testing.assert_allclose(edges, [box.x, box.y, box.x + box.width, box.y + box.height], atol=1024 / 224)


def test_the_published_boxes_are_984_on_880_images(real_data, published):
    root = real_data / "ChestX-ray14"
    table = boxes(root)
    assert (len(table), table["image_id"].nunique()) == (984, 880)
    assert table["finding"].value_counts()["infiltration"] == 123
    assert table["image_id"].isin(published[2020]["image_id"]).all()
    assert (table[["x", "y"]] >= 0).all(axis=None)
    assert (table["x"] + table["width"]).max() <= 1024
    assert (table["y"] + table["height"]).max() <= 1024


def test_the_images_at_hand_are_450_of_223_patients(real_data, caplog):
    root = real_data / "ChestX-ray14"
    with caplog.at_level(logging.INFO):
        table = read(root)
    assert (len(table), table["patient_id"].nunique()) == (450, 223)
    assert (table["image_id"].map(official(root)) == "test").sum() == 92
