"""How many visits a case has before it, what changed since the last one, and which cases are compared."""

import numpy as np
import pandas as pd

from lungdet.evaluation.statistics.visits import earlier_visits, groups, label_before

TABLE = pd.DataFrame(
    [
        # the rows are in no order; the third and fourth patient have gaps, the fifth two images of one visit
        ("a", 2, 1, 1),
        ("a", 0, 0, 0),
        ("a", 1, 0, 0),
        ("b", 0, 1, 1),
        ("b", 1, 1, 0),
        ("b", 2, 0, 0),
        ("c", 0, 0, 0),
        ("c", 4, np.nan, np.nan),
        ("c", 9, 1, 1),
        ("d", 3, 1, 1),
        ("e", 0, 0, np.nan),
        ("e", 0, 1, np.nan),
        ("e", 1, 0, np.nan),
    ],
    columns=["patient_id", "visit", "target_abnormal", "target_pneumonia"],
)


def test_earlier_visits_are_the_patients_images_with_a_smaller_number_labelled_or_not():
    assert earlier_visits(TABLE).tolist() == [2, 0, 1, 0, 1, 2, 0, 1, 2, 0, 0, 0, 2]


def test_the_label_before_is_that_of_the_last_visit_and_unknown_where_that_is():
    nan = np.nan
    expected = [0, nan, 0, nan, 1, 1, nan, 0, nan, nan, nan, nan, 1]
    assert np.array_equal(label_before(TABLE, "abnormal"), expected, equal_nan=True)


def test_cases_are_grouped_by_what_changed_and_by_the_length_of_their_series():
    found = {group.name: np.flatnonzero(inside).tolist() for group, (_, inside) in groups(TABLE, ("abnormal",)).items()}
    assert found == {
        "abnormal appeared": [0, 2],  # one appeared, one is still absent; c's visit before is unlabelled
        "abnormal cleared": [4, 5, 12],  # two cleared, one is still there
        "abnormal unchanged": [2, 4],
        "pneumonia appeared": [0, 2],
        "pneumonia cleared": [],  # of b's second image something else makes it abnormal, of its third it did before
        "pneumonia unchanged": [2],
        "1": [1, 3, 6, 9, 10, 11],
        "2": [2, 4],
        "3": [0, 5, 8, 12],
    }
    of_findings = groups(TABLE, ("pneumonia",))
    assert {group.name: np.flatnonzero(inside).tolist() for group, (_, inside) in of_findings.items()} == {
        "pneumonia appeared": [0, 2, 5],
        "pneumonia cleared": [4],
        "pneumonia unchanged": [2, 5],
        "1": [1, 3, 6, 9],
        "2": [2, 4],
        "3": [0, 5, 8],
    }


def test_four_to_seven_and_eight_or_more_images_are_long_series():
    table = pd.DataFrame({"patient_id": 0, "visit": range(12), "target_abnormal": 0.0})
    found = {
        group.length: int(inside.sum()) for group, (_, inside) in groups(table, ("abnormal",)).items() if group.length
    }
    assert found == {"1": 1, "2": 1, "3": 1, "4 to 7": 4, "8 or more": 5}
