"""Metrics equal another implementation, and say why where they are undefined."""

import math

import numpy as np
import pytest
from scipy import special, stats

from lungdet.evaluation.statistics import metrics, thresholds
from lungdet.evaluation.statistics.bootstrap import replicate
from lungdet.evaluation.statistics.cases import Case
from lungdet.evaluation.statistics.metrics import log_odds

SKLEARN = {
    "accuracy": ("accuracy_score", False),
    "precision": ("precision_score", False),
    "recall": ("recall_score", False),
    "f1": ("f1_score", False),
    "balanced_accuracy": ("balanced_accuracy_score", False),
    "auroc": ("roc_auc_score", True),
    "average_precision": ("average_precision_score", True),
    "brier": ("brier_score_loss", True),
    "log_loss": ("log_loss", True),
}


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of a random share abnormal and float32 probabilities, rounded for many ties in every other seed."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(10, 400))
    y = (rng.random(n) < rng.uniform(0.1, 0.9)).astype(np.float32)
    y[:2] = 0, 1
    p = rng.random(n).astype(np.float32)
    return y, np.round(p, 1) if seed % 2 else p


@pytest.mark.parametrize("name", SKLEARN)
def test_metrics_equal_scikit_learn(name):
    import sklearn.metrics

    function, needs_probability = SKLEARN[name]
    reference = getattr(sklearn.metrics, function)
    for seed in range(60):
        y, p = draw(seed)
        p = p.astype(np.float64)
        expected = reference(y, p if needs_probability else p > 0.4)
        assert metrics.METRICS[name](y, log_odds(p), log_odds(0.4)) == pytest.approx(expected, abs=1e-10), seed


def test_specificity_is_the_recall_of_the_other_class():
    for seed in range(20):
        y, p = draw(seed)
        logit = np.round(log_odds(p), seed % 3)
        # A strict threshold seen from the other side lets equality pass, hence the step of one float.
        other = metrics.recall(1 - y, -logit, np.nextafter(0.3, 0))
        assert metrics.specificity(y, logit, -0.3) == pytest.approx(other, abs=1e-10)


@pytest.mark.parametrize("name", ["accuracy", "precision", "recall", "f1", "specificity", "auroc", "average_precision"])
def test_metrics_equal_torchmetrics_in_float32(name):
    import torch
    from torchmetrics.functional import classification

    reference = {
        "accuracy": classification.binary_accuracy,
        "precision": classification.binary_precision,
        "recall": classification.binary_recall,
        "f1": classification.binary_f1_score,
        "specificity": classification.binary_specificity,
        "auroc": classification.binary_auroc,
        "average_precision": classification.binary_average_precision,
    }[name]
    for seed in range(20):
        y, p = draw(seed)
        p[:5] = 0.5  # exactly at the threshold: called normal
        expected = float(reference(torch.from_numpy(p), torch.from_numpy(y).long()))
        assert metrics.METRICS[name](y, log_odds(p)) == pytest.approx(expected, abs=1e-6), seed


def test_a_probability_of_exactly_the_threshold_is_called_normal():
    assert Case(np.array([1.0, 0.0]), log_odds([0.5, 0.5])).total()[:4] == (0, 0, 1, 1)


def test_unknown_labels_are_left_out():
    y, p = draw(4)
    logit = log_odds(p)
    with_unknown = np.append(y, [np.nan, np.nan]), np.append(logit, [2, -2])
    assert metrics.scores(*with_unknown) == metrics.scores(y, logit)


@pytest.mark.parametrize(
    ("y", "p", "undefined"),
    [
        ([1, 1], [0.2, 0.8], {"specificity": "no image is normal", "auroc": "no image is normal"}),
        ([0, 0], [0.2, 0.8], {"recall": "no image is abnormal", "average_precision": "no image is abnormal"}),
        ([0, 1], [0.1, 0.2], {"precision": "no image is called abnormal"}),
        ([0, 0], [0.1, 0.2], {"f1": "no image is abnormal and none is called so"}),
        ([math.nan], [0.5], {"accuracy": "no image has a known label", "brier": "no image has a known label"}),
    ],
)
def test_an_undefined_metric_is_nan_and_says_why(y, p, undefined):
    found = metrics.scores(y, log_odds(p))
    for name, reason in undefined.items():
        assert math.isnan(found[name])
        assert found[name].reason == reason


def test_always_normal_has_a_recall_and_f1_of_zero_but_no_precision():
    found = metrics.scores([0, 1, 1], log_odds([0.0, 0.0, 0.0]), names=["precision", "recall", "f1"])
    assert math.isnan(found["precision"])
    assert (found["recall"], found["f1"]) == (0, 0)


def test_a_missing_threshold_is_passed_on_and_never_read_as_normal():
    threshold = metrics.Undefined("validation held one class")
    found = metrics.scores([0, 1], [-1.0, 1.0], threshold)
    assert found["accuracy"].reason == "there is no threshold: validation held one class"
    assert found["auroc"] == 1


def test_images_of_several_runs_are_each_judged_at_their_own_threshold():
    y, logit = np.array([1, 0, np.nan, 1, 0]), np.array([0.4, 0.1, 0.9, 0.8, 0.85])
    own = np.array([0.3, 0.3, 0.3, 0.9, 0.9])  # calls: abnormal, normal, -, normal, normal
    assert metrics.accuracy(y, logit, own) == 3 / 4
    assert metrics.recall(y, logit, own) == 1 / 2
    assert metrics.scores(y, logit, np.full(5, 0.4)) == metrics.scores(y, logit, 0.4)


def test_constant_log_odds_have_an_auroc_of_one_half():
    assert metrics.auroc([0, 1, 1], [1.0, 1.0, 1.0]) == 0.5


@pytest.mark.parametrize(
    ("y", "logit", "message"),
    [
        ([0, 1], [0.1, math.nan], "1 log-odds are NaN or infinite"),
        ([0, 1], [0.1, math.inf], "infinite, the first is inf"),
        ([0, 2], [0.1, 0.5], "not 0, 1 or NaN, the first is 2"),
        ([0, 1], [0.1], "one length"),
    ],
)
def test_input_that_is_no_label_or_log_odds_is_refused(y, logit, message):
    with pytest.raises(ValueError, match=message):
        metrics.accuracy(y, logit)


def test_a_models_certainty_beyond_what_a_probability_holds_counts():
    """Log-odds of a model that is far too sure: most probabilities are 1 or 0 in any floating point."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    y = (rng.random(2000) < 0.5).astype(np.float64)
    logit = 30 * (y + rng.normal(size=2000))  # both classes are called abnormal, mostly
    assert metrics.auroc(y, logit) == pytest.approx(roc_auc_score(y, logit), abs=1e-12)
    assert metrics.auroc(y, logit) == pytest.approx(stats.norm.cdf(math.sqrt(0.5)), abs=0.02)
    assert metrics.average_precision(y, logit) == pytest.approx(average_precision_score(y, logit), abs=1e-12)
    chosen = thresholds.choose(y, logit, "specificity", 0.9).logit
    assert chosen > 37  # a probability of 1, to which nothing is above
    assert metrics.recall(y, logit, chosen) == pytest.approx(stats.norm.sf(stats.norm.ppf(0.9) - 1), abs=0.05)
    drawn_metrics = (metrics.auroc, metrics.recall, metrics.log_loss)
    drawn = replicate([Case(y, logit, chosen)], np.arange(2000), 100, metrics=drawn_metrics)[0]
    expected = [metric(y, logit, chosen) for metric in drawn_metrics]
    assert drawn.mean(axis=1) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("logit", [0.3, 18.0, 40.0, 700.0])
def test_a_sure_mistake_costs_its_log_odds(logit):
    expected = -stats.logistic.logsf(logit)
    assert metrics.log_loss([0], [logit]) == metrics.log_loss([1], [-logit]) == pytest.approx(expected, rel=1e-12)
    assert metrics.log_loss([1], [logit]) == pytest.approx(-stats.logistic.logcdf(logit), rel=1e-12)
    assert metrics.brier([0], [logit]) == metrics.brier([1], [-logit]) == pytest.approx(special.expit(logit) ** 2)


def test_the_log_odds_of_several_models_mean_are_those_of_their_mean_probability():
    logit = np.random.default_rng(0).normal(0, 8, (3, 500))
    assert metrics.ensemble(logit) == pytest.approx(special.logit(special.expit(logit).mean(axis=0)), rel=1e-6)
    assert metrics.ensemble(np.array([[50.0, -800.0], [52.0, -800.0]])) == pytest.approx(
        [50 + math.log(2 / (1 + math.exp(-2))), -800]
    )
