"""Thresholds keep their rule's promise, choose by validation alone, and survive storage."""

import math

import numpy as np
import pytest

from lungdet.evaluation.statistics import metrics, thresholds


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.random(80) < 0.4).astype(np.float32)
    y[:2] = 0, 1
    logit = y + rng.normal(size=80)
    return y, np.round(logit, 1) if seed % 2 else logit


@pytest.mark.parametrize("seed", range(8))
def test_no_other_threshold_does_better(seed):
    y, logit = draw(seed)
    others = np.linspace(-4, 5, 400)
    youden = {t: metrics.recall(y, logit, t) + metrics.specificity(y, logit, t) for t in others}
    chosen = thresholds.choose(y, logit, "youden").logit
    assert metrics.recall(y, logit, chosen) + metrics.specificity(y, logit, chosen) >= max(youden.values()) - 1e-12
    assert (
        metrics.f1(y, logit, thresholds.choose(y, logit, "f1").logit)
        >= max(metrics.f1(y, logit, t) for t in others) - 1e-12
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("at", [0, 0.5, 0.95, 1])
def test_sensitivity_and_specificity_are_reached_at_the_least_cost(seed, at):
    y, logit = draw(seed)
    threshold = thresholds.choose(y, logit, "sensitivity", at).logit
    assert metrics.recall(y, logit, threshold) >= at
    above = logit[logit > threshold]
    if len(above) and at > 0:  # one step higher the promise is broken
        assert metrics.recall(y, logit, float(above.min())) < at
    threshold = thresholds.choose(y, logit, "specificity", at).logit
    assert metrics.specificity(y, logit, threshold) >= at
    below = logit[logit <= threshold]
    if len(below) and at > 0:
        assert metrics.specificity(y, logit, np.nextafter(float(below.max()), -9)) < at


def test_of_equally_good_thresholds_the_one_nearest_to_one_half_is_taken():
    assert thresholds.choose([0, 1], [-2, 2], "youden").logit == 0
    # -1.5 and 3.5 are equally good, as are -3.5 and 1.5
    assert thresholds.choose([0, 1, 0, 1], [-2, -1, 3, 4], "youden").logit == -1.5
    assert thresholds.choose([0, 1, 0, 1], [-4, -3, 1, 2], "youden").logit == 1.5


def test_images_that_all_have_the_same_log_odds_are_handled():
    assert thresholds.choose([1, 1, 0], [-40, -40, -40], "sensitivity", 1).logit < -40
    assert thresholds.choose([0, 1], [40, 40], "specificity", 1).logit > 40


def test_a_fixed_threshold_is_a_probability():
    assert thresholds.choose([0, 1], [-1, 1], "fixed", 0.2).logit == pytest.approx(np.log(0.25))
    assert thresholds.choose([0, 1], [-1, 1], "fixed", 0.2).as_dict()["value"] == pytest.approx(0.2)
    assert thresholds.choose([0, 1], [-1, 1], "fixed", 0.5).logit == 0


@pytest.mark.parametrize(
    ("rule", "at", "message"),
    [
        ("yuden", None, r"threshold\.rule=yuden is no rule; the rules are\n  youden: .*\n  f1: "),
        ("sensitivity", None, r"needs a number from 0 to 1 in threshold\.at, found None"),
        ("fixed", 95, "found 95"),
        ("fixed", 1, "no image would be called otherwise"),
        ("youden", 0.9, "leave it out"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(rule, at, message):
    with pytest.raises(thresholds.ThresholdError, match=message):
        thresholds.choose([0, 1], [0.1, 0.9], rule, at)


@pytest.mark.parametrize("rule", ["youden", "f1"])
def test_one_class_in_validation_leaves_no_threshold_and_says_why(rule):
    threshold = thresholds.choose([0, 0, math.nan], [0.1, 0.9, 0.5], rule)
    assert math.isnan(threshold.logit)
    assert threshold.logit.reason == "no image is abnormal among the 2 labelled validation images"


@pytest.mark.parametrize("labels", [[0, 1], [0, 0]])
def test_a_stored_threshold_is_read_back_the_same(tmp_path, labels):
    assert thresholds.load(tmp_path) == {}
    threshold = thresholds.choose(labels, [0.1, 0.7], "youden")
    thresholds.save({"abnormal": threshold}, tmp_path)
    read = thresholds.load(tmp_path)["abnormal"]
    assert read.as_dict() == threshold.as_dict()
    assert math.isnan(read.logit) == (labels == [0, 0])
