"""Means and differences of estimates: seed by seed, draw by draw, with the reason where one is undefined."""

import math

import numpy as np
import pytest

from lungdet.evaluation.statistics.cases import Undefined
from lungdet.evaluation.statistics.estimates import mean, minus, turned
from lungdet.evaluation.statistics.intervals import Estimate, interval

ONE = Estimate([0.6, 0.8], np.array([[0.5, 0.7, np.nan], [0.7, 0.9, 0.8]]), 40, 12)
TWO = Estimate([0.2, 0.6], np.array([[0.1, 0.3, 0.2], [0.5, 0.7, 0.6]]), 30, 20)


def test_a_mean_rests_on_as_few_patients_as_the_least_of_its_parts():
    both = mean([ONE, TWO])
    assert both.values == pytest.approx([0.4, 0.7])
    assert both.draws == pytest.approx(np.array([[0.3, 0.5, np.nan], [0.6, 0.8, 0.7]]), nan_ok=True)
    assert (both.patients, both.supporting) == (30, 12)
    assert mean([ONE, TWO], over_defined=True).draws[0] == pytest.approx([0.3, 0.5, 0.2])


def test_what_is_undefined_under_a_seed_has_no_mean_and_no_difference_there_and_says_why():
    missing = ONE._replace(values=[Undefined("no image is normal"), 0.8])
    both, less = mean([missing, TWO]), minus(TWO, missing, ("in training", "in validation"))
    assert math.isnan(both.values[0])
    assert both.values[0].reason == "no image is normal"
    assert less.values[0].reason == "in validation no image is normal"
    assert (both.values[1], less.values[1]) == pytest.approx((0.7, -0.2))


def test_a_difference_is_of_the_same_draws_and_may_leave_the_range_of_a_share():
    less = minus(TWO, ONE)
    assert (less.scale.low, less.scale.high) == (-1, 1)
    assert less.draws == pytest.approx(TWO.draws - ONE.draws, nan_ok=True)
    low, high = interval(
        minus(TWO._replace(values=[0.0]), ONE._replace(values=[0.5], draws=np.array([[0.7, 0.5, 0.8]])))
    )
    assert low < -0.5 < high


def test_turned_draws_are_the_same_in_another_order():
    again = turned(TWO, 1)
    assert again.draws.tolist() == [[0.2, 0.1, 0.3], [0.6, 0.5, 0.7]]
    assert again.values == TWO.values
