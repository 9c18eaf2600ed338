"""ChestX-ray14 as it is published: the counts of its tables, lists and boxes, and the images at hand."""

import logging

import numpy as np
import pandas as pd
import pytest

from lungdet.data.manifest import COLUMNS
from lungdet.data.serving.series import Series
from lungdet.data.sources import chestxray14
from lungdet.data.sources.chestxray14 import ChestXray14DataModule
from lungdet.data.sources.chestxray14_tables import boxes, read_table


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
    parts = table["image_id"].map(ChestXray14DataModule(real_data / "ChestX-ray14").official())
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
    data = ChestXray14DataModule(real_data / "ChestX-ray14")
    manifest, drawn = data.read(), boxes(data.root)
    known, drawn = data.regions(manifest), drawn[drawn["image_id"].isin(manifest["image_id"])]
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
    data = ChestXray14DataModule(real_data / "ChestX-ray14")
    with caplog.at_level(logging.INFO):
        table = data.read()
    assert (len(table), table["patient_id"].nunique()) == (450, 223)
    assert (table["image_id"].map(data.official()) == "test").sum() == 92
