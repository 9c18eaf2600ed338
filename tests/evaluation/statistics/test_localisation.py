"""Pointing game, energy and overlap, by hand; intervals of a mean over patients."""

import numpy as np
import pytest
from scipy import stats

from lungdet.evaluation.statistics.intervals import interval
from lungdet.evaluation.statistics.localisation import energy, estimate, overlap, pointing

REGION = np.zeros((4, 4), bool)
REGION[:2, :2] = True


def heat(**values: float) -> np.ndarray:
    """A map that is 0 but at these places: `r0c1=3` is row 0, column 1."""
    drawn = np.zeros((4, 4), np.float32)
    for place, value in values.items():
        drawn[int(place[1]), int(place[3])] = value
    return drawn


def test_the_hottest_place_is_inside_or_not_and_a_tie_counts_by_its_share() -> None:
    assert pointing(heat(r0c1=2, r3c3=1), REGION) == 1
    assert pointing(heat(r0c1=1, r3c3=2), REGION) == 0
    assert pointing(heat(r0c1=2, r3c3=2), REGION) == 0.5
    assert pointing(heat(), REGION) == 0.25


def test_energy_is_the_share_of_heat_inside() -> None:
    assert energy(heat(r0c1=3, r3c3=1), REGION) == 0.75
    assert energy(heat(), REGION) == 0.25


def test_overlap_takes_as_many_of_the_hottest_pixels_as_the_region_has() -> None:
    assert overlap(heat(r0c0=4, r0c1=3, r1c0=2, r1c1=1), REGION) == 1
    assert overlap(heat(r0c0=4, r0c1=3, r3c0=2, r3c1=1), REGION) == pytest.approx(2 / 6)
    assert overlap(heat(r3c0=4, r3c1=3, r3c2=2, r3c3=1), REGION) == 0
    # Two are inside; the other two are any of 14 that are 0, of which 2 are inside.
    assert overlap(heat(r0c0=4, r0c1=3), REGION) == pytest.approx((2 + 2 * 2 / 14) / (8 - 2 - 2 * 2 / 14))
    assert overlap(heat(), REGION) == pytest.approx(1 / 7)


def test_an_interval_is_as_wide_as_patients_of_several_images_make_it() -> None:
    """Beside the formula of a ratio of two means, by patient."""
    generator = np.random.default_rng(1)
    patient = np.repeat(np.arange(60), generator.integers(1, 6, 60))
    values = np.clip(generator.normal(0.5, 0.15, 60)[patient] + generator.normal(0, 0.02, len(patient)), 0, 1)
    measured = estimate(values[None], patient, 4000)
    assert measured.values == [pytest.approx(values.mean())]
    counts, sums = np.bincount(patient), np.bincount(patient, values)
    error = np.sqrt(60 * np.var(sums - values.mean() * counts, ddof=1)) / len(patient)
    assert measured.draws.std() == pytest.approx(error, rel=0.06)
    low, high = interval(measured)
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, 59) * error, rel=0.06)
    assert error > 1.3 * values.std() / np.sqrt(len(patient))  # images alone would claim more
