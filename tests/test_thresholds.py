"""Thresholds keep their rule's promise, choose by validation alone, and survive storage."""

import math

import numpy as np
import pytest

from lungdet.evaluation.statistics import metrics, thresholds


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.random(80) < 0.4).astype(np.float32)
    y[:2] = 0, 1
    p = (1 / (1 + np.exp(-(y + rng.normal(size=80))))).astype(np.float32)
    return y, np.round(p, 1) if seed % 2 else p


@pytest.mark.parametrize("seed", range(8))
def test_no_other_threshold_does_better(seed):
    y, p = draw(seed)
    others = np.linspace(-0.01, 1, 400)
    youden = {t: metrics.recall(y, p, t) + metrics.specificity(y, p, t) for t in others}
    chosen = thresholds.choose(y, p, "youden").value
    assert metrics.recall(y, p, chosen) + metrics.specificity(y, p, chosen) >= max(youden.values()) - 1e-12
    assert metrics.f1(y, p, thresholds.choose(y, p, "f1").value) >= max(metrics.f1(y, p, t) for t in others) - 1e-12


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("at", [0, 0.5, 0.95, 1])
def test_sensitivity_and_specificity_are_reached_at_the_least_cost(seed, at):
    y, p = draw(seed)
    threshold = thresholds.choose(y, p, "sensitivity", at).value
    assert metrics.recall(y, p, threshold) >= at
    above = p[p > threshold]
    if len(above) and at > 0:  # one step higher the promise is broken
        assert metrics.recall(y, p, float(above.min())) < at
    threshold = thresholds.choose(y, p, "specificity", at).value
    assert metrics.specificity(y, p, threshold) >= at
    below = p[p <= threshold]
    if len(below) and at > 0:
        assert metrics.specificity(y, p, np.nextafter(float(below.max()), -1)) < at


def test_of_equally_good_thresholds_the_one_nearest_to_one_half_is_taken():
    assert thresholds.choose([0, 1], [0.2, 0.8], "youden").value == pytest.approx(0.5)
    # .25 and .85 are equally good, as are .15 and .75
    assert thresholds.choose([0, 1, 0, 1], [0.1, 0.4, 0.8, 0.9], "youden").value == pytest.approx(0.25)
    assert thresholds.choose([0, 1, 0, 1], [0.1, 0.2, 0.6, 0.9], "youden").value == pytest.approx(0.75)


def test_probabilities_of_exactly_zero_and_one_are_handled():
    assert thresholds.choose([1, 1, 0], [0.0, 0.0, 0.0], "sensitivity", 1).value < 0
    assert metrics.specificity([0, 1], [1.0, 1.0], thresholds.choose([0, 1], [1.0, 1.0], "specificity", 1).value) == 1


@pytest.mark.parametrize(
    ("rule", "at", "message"),
    [
        ("yuden", None, r"threshold\.rule=yuden is no rule; the rules are\n  youden: .*\n  f1: "),
        ("sensitivity", None, r"needs a number from 0 to 1 in threshold\.at, found None"),
        ("fixed", 95, "found 95"),
        ("youden", 0.9, "leave it out"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(rule, at, message):
    with pytest.raises(thresholds.ThresholdError, match=message):
        thresholds.choose([0, 1], [0.1, 0.9], rule, at)


@pytest.mark.parametrize("rule", ["youden", "f1"])
def test_one_class_in_validation_leaves_no_threshold_and_says_why(rule):
    threshold = thresholds.choose([0, 0, math.nan], [0.1, 0.9, 0.5], rule)
    assert math.isnan(threshold.value)
    assert threshold.value.reason == "no image is abnormal among the 2 labelled validation images"


@pytest.mark.parametrize("labels", [[0, 1], [0, 0]])
def test_a_stored_threshold_is_read_back_the_same(tmp_path, labels):
    assert thresholds.load(tmp_path) == {}
    threshold = thresholds.choose(labels, [0.1, 0.7], "youden")
    thresholds.save({"abnormal": threshold}, tmp_path)
    read = thresholds.load(tmp_path)["abnormal"]
    assert read.as_dict() == threshold.as_dict()
    assert math.isnan(read.value) == (labels == [0, 0])
