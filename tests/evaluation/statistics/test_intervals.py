"""Intervals and differences: against other implementations, in corner cases, and in a small simulation."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from lungdet.evaluation.statistics import metrics
from lungdet.evaluation.statistics.bootstrap import replicate
from lungdet.evaluation.statistics.cases import Case
from lungdet.evaluation.statistics.intervals import (
    Estimate,
    counts_seeds,
    difference,
    holm,
    interval,
    p_value,
    variance,
)
from lungdet.evaluation.statistics.scales import CORRELATION, LOSS, SHARE, of_differences
from tests.simulated import cohort, several_seeds


def estimate(name: str, seeds: list[np.ndarray], y: np.ndarray, patient: np.ndarray, draws: int = 2000) -> Estimate:
    drawn = replicate([Case(y, p) for p in seeds], patient, draws, metrics=(metrics.METRICS[name],))[:, 0]
    patients = patient.max() + 1
    values = [metrics.METRICS[name](y, p) for p in seeds]
    return Estimate(values, drawn, patients, patients, metrics.METRICS[name].scale)


def delong_by_patient(y: np.ndarray, first: np.ndarray, second: np.ndarray, patient: np.ndarray) -> float:
    """The standard error of a difference of AUROCs where patients have several images (Obuchowski 1997)."""
    abnormal, normal = (np.flatnonzero(y == value) for value in (1, 0))
    patients = patient.max() + 1
    above = []
    for p in (first, second):
        wins = (p[abnormal][:, None] > p[normal]) + 0.5 * (p[abnormal][:, None] == p[normal])
        auroc = wins.mean()
        of_abnormal = np.bincount(patient[abnormal], wins.mean(1) - auroc, patients)
        of_normal = np.bincount(patient[normal], wins.mean(0) - auroc, patients)
        above.append(of_abnormal / len(abnormal) + of_normal / len(normal))
    # Abnormal and normal images of one patient vary together: their sum is the patient's contribution.
    return math.sqrt(np.sum((above[1] - above[0]) ** 2) * patients / (patients - 1))


def test_a_difference_of_aurocs_has_the_error_of_delongs_clustered_form():
    generator = np.random.default_rng(0)
    y, patient = cohort(generator, 300)
    one, two = (several_seeds(generator, y, patient, 1, skill, 0)[0] for skill in (1.0, 1.2))
    first, second = (estimate("auroc", [p], y, patient, 4000) for p in (one, two))
    found = difference(first, second)
    error = delong_by_patient(y, one, two, patient)
    assert (found.high - found.low) / 2 / stats.t.ppf(0.975, 299) == pytest.approx(error, rel=0.05)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(found.value) / error, 299), rel=0.2)
    # Images taken for patients, the interval would be too narrow.
    alone = np.arange(len(y))
    narrow = difference(*(estimate("auroc", [p], y, alone, 1000) for p in (one, two)))
    assert narrow.high - narrow.low < 0.95 * (found.high - found.low)


def test_one_image_a_patient_gives_the_interval_of_a_share():
    generator = np.random.default_rng(1)
    y, p = (generator.random(400) < 0.5).astype(float), -generator.random(400)
    y[:300] = 0
    found = estimate("accuracy", [p], y, np.arange(400), 4000)
    share = found.values[0]
    logit = math.log(share / (1 - share))
    margin = stats.t.ppf(0.975, 399) / math.sqrt(400 * share * (1 - share))
    expected = [1 / (1 + math.exp(-(logit + side * margin))) for side in (-1, 1)]
    assert interval(found) == pytest.approx(expected, abs=0.003)


def test_seeds_that_differ_widen_the_interval_and_two_of_them_do_not():
    draws = np.random.default_rng(0).normal(0.8, 0.01, (1, 3000))
    alike = Estimate([0.8, 0.8, 0.8], np.repeat(draws, 3, axis=0), 200, 200)
    apart = alike._replace(values=[0.7, 0.8, 0.9], draws=draws + np.array([[-0.1], [0], [0.1]]))
    low, high = interval(apart)
    narrow = interval(alike)
    assert narrow == pytest.approx((0.78, 0.82), abs=0.003)
    assert low < narrow[0] - 0.1
    assert high > narrow[1] + 0.1
    of = variance(apart)
    assert of.seeds == pytest.approx(0.1**2 / 3)
    assert 2 < of.freedom < 2.2
    two = apart._replace(values=[0.7, 0.9], draws=draws + np.array([[-0.1], [0.1]]))
    assert interval(two) == pytest.approx(narrow, abs=1e-9)


def test_a_difference_is_students_and_with_unequal_numbers_of_seeds_welchs():
    generator = np.random.default_rng(3)
    one, two = 0.7 + 0.05 * generator.normal(size=4), 0.8 + 0.02 * generator.normal(size=4)
    for seeds, equal in ((4, True), (3, False)):
        values = one, two[:seeds]
        # No draw differs: nothing is left open by patients, and seeds are all there is.
        first, second = (Estimate(list(v), np.repeat(v[:, None], 50, axis=1), 200, 200) for v in values)
        found, expected = difference(first, second), stats.ttest_ind(values[1], values[0], equal_var=equal)
        assert found.p == pytest.approx(expected.pvalue)
        assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_patients_that_seeds_read_by_chance_are_not_counted_twice():
    # Each seed errs on patients of its own: the spread over seeds is theirs, and there is nothing beside it.
    generator = np.random.default_rng(0)
    y, patient = cohort(generator, 400)
    by_chance = [several_seeds(generator, y, patient, 1, 1.2, 0)[0] for _ in range(5)]
    spreads = variance(estimate("auroc", by_chance, y, patient, 1000))
    assert spreads.seeds < spreads.patients


def test_a_share_of_one_is_not_certain():
    y = np.repeat([0.0, 1.0], 20)
    sure = estimate("recall", [y - 0.5], y, np.arange(40), 300)._replace(supporting=20)
    low, high = interval(sure)
    assert (low, high) == (pytest.approx(stats.binomtest(20, 20).proportion_ci(0.95).low), 1.0)
    none = estimate("recall", [np.full(40, -1)], y, np.arange(40), 300)._replace(supporting=20)
    assert interval(none) == (0.0, pytest.approx(stats.binomtest(0, 20).proportion_ci(0.95).high))


def test_a_number_that_no_draw_changes_has_no_interval_and_a_difference_none_beyond_its_range():
    y = np.repeat([0.0, 1.0], 20)
    low, _ = interval(estimate("auroc", [np.full(40, 0.3)], y, np.arange(40), 200))  # of a constant answer
    assert "the same in every redrawn part" in low.reason
    wide = np.random.default_rng(0).uniform(0, 1, (1, 300))
    found = difference(Estimate([0.1], wide, 4, 4), Estimate([0.9], 1 - wide, 4, 4))
    assert (found.low, found.high) == (pytest.approx(-1), 1)


def test_there_is_no_interval_where_nothing_can_be_redrawn_and_it_says_why():
    p = np.array([0.2, 0.4, 0.9])
    low, high = interval(Estimate([0.5], np.full((1, 0), np.nan), 1, 1))
    assert math.isnan(low)
    assert "single patient" in high.reason
    rare = estimate("auroc", [np.resize(p, 30)], np.eye(30)[0], np.arange(30), 500)
    assert "undefined in" in interval(rare)[0].reason
    missing = Estimate([metrics.Undefined("no image is normal")], np.full((1, 9), np.nan), 9, 9)
    assert interval(missing)[0].reason == "no image is normal"
    nothing = difference(rare, rare)
    assert math.isnan(nothing.p)
    assert "undefined in" in nothing.low.reason


def test_models_that_answer_alike_do_not_differ():
    y, patient = cohort(np.random.default_rng(0), 50)
    one = estimate("accuracy", several_seeds(np.random.default_rng(1), y, patient, 1, 1, 0), y, patient, 200)
    assert difference(one, one) == (0, 0, 0, 1)


def test_holms_adjustment_is_the_largest_bonferroni_of_all_families_with_the_test():
    """Closed testing (Marcus et al. 1976): a test is shown where each family that it belongs to is."""
    for seed in range(20):
        p = list(np.random.default_rng(seed).random(7) ** 3)
        families = [family for size in range(1, 8) for family in combinations(range(7), size)]
        bonferroni = {family: min(1, len(family) * min(p[test] for test in family)) for family in families}
        assert holm(p) == pytest.approx([max(bonferroni[f] for f in families if test in f) for test in range(7)])
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])  # R's p.adjust
    assert holm([0.01, math.nan, 0.04])[0] == pytest.approx(0.02)
    assert math.isnan(holm([0.01, math.nan, 0.04])[1])


def test_intervals_hold_the_truth_and_false_claims_are_rare():
    """The drills' simulation, small: 150 studies of 100 patients, three seeds that differ as much as test parts do."""
    claims = 0
    for study in range(150):
        generator = np.random.default_rng([5, study])
        y, patient = cohort(generator, 100)
        both = [several_seeds(generator, y, patient, 3, 1.2, 0.16) for _ in range(2)]
        claims += difference(*(estimate("accuracy", seeds, y, patient, 200) for seeds in both)).p < 0.05
    assert claims <= 15  # 5 % expected; more than 10 % has a chance of one in 200


def test_a_difference_that_no_draw_changes_is_not_certain_either():
    sure, wrong = (Estimate([value], np.full((1, 300), value), 3, 3) for value in (1.0, 0.0))
    found = difference(wrong, sure)
    assert found.value == 1
    assert math.isnan(found.p)
    assert "the same in every redrawn part" in found.low.reason


@pytest.mark.parametrize(("value", "side"), [(1.0, 1), (-1.0, -1)])
def test_a_correlation_on_its_edge_lies_in_its_interval(value, side):
    low, high = interval(Estimate([value], np.full((1, 300), value), 30, 30, CORRELATION))
    assert low <= value <= high
    assert sorted((abs(low), abs(high)))[0] == pytest.approx(2 * 0.025 ** (1 / 30) - 1)


def test_the_p_value_of_a_difference_that_is_measured_seed_by_seed_is_students():
    values = 0.02 + 0.02 * np.random.default_rng(0).normal(size=5)
    # No draw differs: seeds are all there is.
    one = Estimate(list(values), np.repeat(values[:, None], 50, axis=1), 200, 200, of_differences(SHARE))
    assert p_value(one) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert p_value(one._replace(values=[0.0], draws=np.zeros((1, 50)))) == 1
    assert math.isnan(p_value(one._replace(values=[0.1], draws=np.full((1, 50), 0.1))))


def test_losses_whose_squared_variance_is_no_number_any_more_have_an_interval():
    drawn = 1e-90 * np.random.default_rng(0).random((1, 200))  # of a model that is sure and right, sharpened further
    low, high = interval(Estimate([5e-91], drawn, 30, 30, LOSS))
    assert 0 <= low < 5e-91 < high < 1e-88


def test_a_loss_of_nothing_has_no_interval_and_says_why():
    low, high = interval(Estimate([0.0], np.zeros((1, 200)), 30, 30, LOSS))
    assert math.isnan(low)
    assert "no image costs anything" in high.reason


def test_beside_a_fixed_system_the_seeds_of_the_other_model_alone_count():
    generator = np.random.default_rng(4)
    y, patient = cohort(generator, 150)
    seeds = estimate("auroc", several_seeds(generator, y, patient, 3, 1.0, 0.6), y, patient, 500)
    system = estimate("auroc", several_seeds(generator, y, patient, 1, 1.2, 0), y, patient, 500)
    fixed = difference(seeds, system._replace(fixed=True))
    patients = np.var((system.draws.mean(0) - seeds.draws.mean(0)), ddof=1) * 150 / 149
    spread = variance(seeds).seeds
    freedom = (patients + spread) ** 2 / (patients**2 / 149 + spread**2 / 2)
    margin = stats.t.ppf(0.975, freedom) * math.sqrt(patients + spread)
    assert spread > 0
    assert (fixed.high - fixed.low) / 2 == pytest.approx(margin)
    of_patients = difference(seeds, system)  # a model of one seed, whose spread nobody knows
    assert of_patients.high - of_patients.low < fixed.high - fixed.low
    assert not counts_seeds([seeds, system])
    assert counts_seeds([seeds, system._replace(fixed=True)])
