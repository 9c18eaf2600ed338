"""Metrics equal another implementation, and say why where they are undefined."""

import math

import numpy as np
import pytest

from lungdet.evaluation.statistics import metrics

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
        assert metrics.METRICS[name](y, p, 0.4) == pytest.approx(expected, abs=1e-10), seed


def test_specificity_is_the_recall_of_the_other_class():
    for seed in range(20):
        y, p = draw(seed)
        # A strict threshold seen from the other side lets equality pass, hence the step of one float.
        other = metrics.recall(1 - y, 1 - p.astype(np.float64), np.nextafter(0.7, 0))
        assert metrics.specificity(y, p, 0.3) == pytest.approx(other, abs=1e-10)


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
        assert metrics.METRICS[name](y, p) == pytest.approx(expected, abs=1e-6), seed


def test_a_probability_of_exactly_the_threshold_is_called_normal():
    assert metrics.confusion(np.array([1.0, 0.0]), np.array([0.5, 0.5]), 0.5) == (0, 0, 1, 1)


def test_unknown_labels_are_left_out():
    y, p = draw(4)
    with_unknown = np.append(y, [np.nan, np.nan]), np.append(p, [0.9, 0.1])
    assert metrics.scores(*with_unknown) == metrics.scores(y, p)


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
    found = metrics.scores(y, p)
    for name, reason in undefined.items():
        assert math.isnan(found[name])
        assert found[name].reason == reason


def test_always_normal_has_a_recall_and_f1_of_zero_but_no_precision():
    found = metrics.scores([0, 1, 1], [0.0, 0.0, 0.0], names=["precision", "recall", "f1"])
    assert math.isnan(found["precision"])
    assert (found["recall"], found["f1"]) == (0, 0)


def test_a_missing_threshold_is_passed_on_and_never_read_as_normal():
    threshold = metrics.Undefined("validation held one class")
    found = metrics.scores([0, 1], [0.1, 0.9], threshold)
    assert found["accuracy"].reason == "there is no threshold: validation held one class"
    assert found["auroc"] == 1


def test_images_of_several_runs_are_each_judged_at_their_own_threshold():
    y, p = np.array([1, 0, np.nan, 1, 0]), np.array([0.4, 0.1, 0.9, 0.8, 0.85])
    own = np.array([0.3, 0.3, 0.3, 0.9, 0.9])  # calls: abnormal, normal, -, normal, normal
    assert metrics.accuracy(y, p, own) == 3 / 4
    assert metrics.recall(y, p, own) == 1 / 2
    assert metrics.scores(y, p, np.full(5, 0.4)) == metrics.scores(y, p, 0.4)


def test_constant_probabilities_have_an_auroc_of_one_half():
    assert metrics.auroc([0, 1, 1], [1.0, 1.0, 1.0]) == 0.5


@pytest.mark.parametrize(
    ("y", "p", "message"),
    [
        ([0, 1], [0.1, math.nan], r"1 probabilities are NaN or outside \[0, 1\]"),
        ([0, 1], [0.1, 1.5], "outside"),
        ([0, 2], [0.1, 0.5], "not 0, 1 or NaN, the first is 2"),
        ([0, 1], [0.1], "one length"),
    ],
)
def test_input_that_is_no_label_or_probability_is_refused(y, p, message):
    with pytest.raises(ValueError, match=message):
        metrics.accuracy(y, p)


def test_the_roc_curve_encloses_the_auroc():
    for seed in range(10):
        y, p = draw(seed)
        x, recall = metrics.roc_curve(y, p)
        assert (x[0], recall[0], x[-1], recall[-1]) == (0, 0, 1, 1)
        assert np.trapezoid(recall, x) == pytest.approx(metrics.auroc(y, p), abs=1e-10)
