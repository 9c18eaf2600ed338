"""The vectorised bootstrap is what a plain loop over redrawn patients gives."""

import numpy as np
import pytest
from scipy.special import expit

from lungdet.evaluation.statistics import metrics
from lungdet.evaluation.statistics.bootstrap import multiplicities, replicate
from lungdet.evaluation.statistics.cases import Case
from lungdet.evaluation.statistics.metrics import log_odds
from tests.simulated import ORDINARY, cohort, one_model

NAMES = tuple(metrics.METRICS)


def study(seed: int = 0, patients: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    y, patient = cohort(generator, patients)
    return y, expit(one_model(generator, y, patient, **ORDINARY)), patient


def redrawn(patient: np.ndarray, draws: int):
    """Of each draw the images, an image of a patient drawn twice being there twice."""
    for _, some in multiplicities(patient.max() + 1, draws):
        for times in some:
            yield np.repeat(np.arange(len(patient)), times[patient])


def sklearn_metrics(y: np.ndarray, p: np.ndarray, threshold: float) -> dict[str, float]:
    from sklearn import metrics as sk
    from sklearn.calibration import calibration_curve

    called = p > threshold
    share, mean = calibration_curve(y, p, n_bins=15)
    images = np.histogram(p, np.linspace(0, 1, 16))[0]
    return {
        "accuracy": sk.accuracy_score(y, called),
        "precision": sk.precision_score(y, called),
        "recall": sk.recall_score(y, called),
        "f1": sk.f1_score(y, called),
        "specificity": sk.recall_score(y, called, pos_label=0),
        "balanced_accuracy": sk.balanced_accuracy_score(y, called),
        "mcc": sk.matthews_corrcoef(y, called),
        "auroc": sk.roc_auc_score(y, p),
        "average_precision": sk.average_precision_score(y, p),
        "brier": sk.brier_score_loss(y, p),
        "log_loss": sk.log_loss(y, p),
        "calibration_error": np.sum(np.abs(share - mean) * images[images > 0]) / len(y),
    }


@pytest.mark.parametrize("digits", [12, 1])
def test_every_metric_of_every_draw_equals_scikit_learn_also_with_ties(digits):
    y, p, patient = study()
    # Not on the edges of bins, where scikit-learn and we may put a probability into different ones.
    p = np.round(p, digits) * 0.97 + 0.0123
    found = replicate([Case(y, log_odds(p), log_odds(0.4))], patient, 40)[0]
    for draw, images in enumerate(redrawn(patient, 40)):
        expected = sklearn_metrics(y[images], p[images], 0.4)
        for place, name in enumerate(NAMES):
            assert found[place, draw] == pytest.approx(expected[name], abs=1e-10), (name, draw)


def test_models_and_parts_of_the_images_share_their_draws():
    y, p, patient = study()
    _, other, _ = study(1)
    other = np.resize(other, len(y))
    part = np.where(patient % 2, np.nan, y)
    p, other = log_odds(p), log_odds(other)
    both = replicate([Case(y, p), Case(part, other)], patient, 30, metrics=(metrics.auroc, metrics.accuracy))
    assert np.array_equal(both[0], replicate([Case(y, p)], patient, 30, metrics=(metrics.auroc, metrics.accuracy))[0])
    for draw, images in enumerate(redrawn(patient, 30)):
        assert both[1, 0, draw] == pytest.approx(metrics.auroc(part[images], other[images]), abs=1e-12)


def test_draws_are_always_the_same_and_leave_out_a_third_of_the_patients():
    y, p, patient = study()
    p = log_odds(p)
    one = replicate([Case(y, p)], patient, 50)
    assert np.array_equal(one, replicate([Case(y, p)], patient, 50), equal_nan=True)
    times = np.concatenate([some for _, some in multiplicities(500, 200)])
    assert (times.sum(axis=1) == 500).all()
    assert (times == 0).mean() == pytest.approx(1 / np.e, abs=0.01)


def test_each_image_may_have_a_threshold_of_its_own():
    y, p, patient = study()
    p, cut = log_odds(p), log_odds(np.where(patient % 2, 0.3, 0.7))
    found = replicate([Case(y, p, cut)], patient, 20, metrics=(metrics.f1,))[0, 0]
    for draw, images in enumerate(redrawn(patient, 20)):
        assert found[draw] == pytest.approx(metrics.f1(y[images], p[images], cut[images]), abs=1e-12)


def test_what_a_draw_cannot_define_is_nan_and_nothing_else_is():
    patient = np.arange(10)
    y = np.zeros(10)
    y[0] = 1
    found = dict(zip(NAMES, replicate([Case(y, np.linspace(2, -2, 10))], patient, 200)[0], strict=True))
    absent = np.array([0 not in images for images in redrawn(patient, 200)])
    for name in ("recall", "auroc", "average_precision", "balanced_accuracy"):
        assert np.array_equal(np.isnan(found[name]), absent), name
    assert np.isnan(found["mcc"][absent]).all()
    assert not np.isnan(found["accuracy"]).any()
    nothing = replicate([Case(np.full(10, np.nan), np.zeros(10))], patient, 5)
    assert np.isnan(nothing).all()
    no_threshold = dict(zip(NAMES, replicate([Case(y, np.zeros(10), np.nan)], patient, 5)[0], strict=True))
    assert np.isnan(no_threshold["accuracy"]).all()
    assert not np.isnan(no_threshold["brier"]).any()
