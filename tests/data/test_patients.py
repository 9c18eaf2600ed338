"""Patients who cannot be one person are named, whichever reader they come from."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lungdet.data.patients import contradictions
from lungdet.data.sources.table import TableDataModule


def manifest(*rows: tuple[str, int, str | None, float]) -> pd.DataFrame:
    """Patient, visit, sex and age of each image."""
    table = pd.DataFrame(rows, columns=["patient_id", "visit", "sex", "age"])
    return table.assign(image_id=[f"i{row}" for row in table.index], sex=table["sex"].astype("str"))


def test_two_sexes_and_growing_younger_by_years_are_named_with_two_examples() -> None:
    sexes, ages = contradictions(
        manifest(
            *(("a", 0, "M", 50), ("a", 1, None, 50), ("a", 2, "F", 49.5)),
            *(("b", 1, "M", 30), ("b", 0, "F", 30), ("c", 0, "F", 9), ("c", 1, "M", 9)),
            *(("d", 1, "F", 60), ("d", 0, "F", 70), ("d", 2, "F", 71), ("e", 0, "F", np.nan), ("e", 1, "F", 3)),
        )
    )
    assert sexes.startswith("3 patients have two sexes: a is M in i0, F in i2; b is F in i4, M in i3 ..")
    assert ages.startswith("1 patients grow younger by more than a year: d is 70 years old in i8, and later 60 in i7")


def test_nothing_is_said_of_what_one_person_can_be() -> None:
    assert not contradictions(manifest(("a", 0, "M", 50), ("a", 1, "M", 49), ("b", 0, "F", 20), ("c", 0, None, np.nan)))


def test_a_dataset_says_so_when_it_is_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.eye(8, dtype=np.uint8) * 90)
    (tmp_path / "my.csv").write_text("path,abnormal,patient_id,age,sex\na.png,0,7,60,F\nb.png,1,7,40,M\n")
    with caplog.at_level(logging.WARNING):
        TableDataModule(table=tmp_path / "my.csv", store=tmp_path / "store", image_size=8).prepare_data()
    assert "table: 1 patients have two sexes: table/7 is F in table/a, M in table/b" in caplog.text
    assert "table/7 is 60 years old in table/a, and later 40 in table/b" in caplog.text
