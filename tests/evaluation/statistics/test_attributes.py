"""Images are divided into groups where they are known, and what is no value of an attribute is unknown."""

import numpy as np
import pandas as pd
import pytest

from lungdet.evaluation.statistics.attributes import divided

HALF = [{"abnormal": 0.0}]


def test_bands_begin_where_they_say_and_what_is_no_age_is_unknown():
    table = pd.DataFrame({"age": [0, 17.9, 18, 39, 40, 59, 60, 74, 75, 120, 121, np.nan, -1]})
    groups, reason = divided(table, "age")
    assert reason is None
    assert {name: np.flatnonzero(inside).tolist() for name, inside in groups.items()} == {
        "under 18": [0, 1],
        "18 to 39": [2, 3],
        "40 to 59": [4, 5],
        "60 to 74": [6, 7],
        "75 or older": [8, 9],
        "unknown": [10, 11, 12],
    }
    groups, _ = divided(pd.DataFrame({"visit": [0, 1, 2, 4, 5, 99]}), "visit")
    assert [inside.sum() for inside in groups.values()] == [1, 1, 2, 2]
    assert list(groups) == ["first", "second", "3rd to 5th", "6th or later"]


def test_an_age_that_is_no_number_is_unknown():
    groups, _ = divided(pd.DataFrame({"age": ["050Y", "17", "45", None]}), "age")
    assert {name: np.flatnonzero(inside).tolist() for name, inside in groups.items()} == {
        "under 18": [1],
        "40 to 59": [2],
        "unknown": [0, 3],
    }
    assert divided(pd.DataFrame({"age": ["050Y", "051Y"]}), "age") == ({}, "unknown on every image")


@pytest.mark.parametrize("dtype", ["object", "str", "category"])
def test_the_word_unknown_is_as_unknown_as_nothing(dtype):
    table = pd.DataFrame({"sex": pd.Series(["unknown", "F", None, "M", "Unknown"], dtype=dtype)})
    groups, _ = divided(table, "sex")
    assert {name: np.flatnonzero(inside).tolist() for name, inside in groups.items()} == {
        "female": [1],
        "male": [3],
        "unknown": [0, 2, 4],
    }
    assert divided(table[:3], "sex") == ({}, "female on every image where it is known")
