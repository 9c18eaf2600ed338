"""Calibration: temperatures, bins and the error without chance, against other implementations and a simulation."""

import math

import numpy as np
import pytest
from scipy import optimize, special, stats

from lungdet.evaluation.statistics import calibration, cases, metrics


def validation(seed: int, images: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and log-odds that are too sure by a factor of their own."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=images) * 2
    y = (rng.random(images) < special.expit(logit)).astype(np.float64)
    return y, (logit * rng.uniform(0.4, 4)).astype(np.float32)


def test_the_temperature_is_that_of_torchs_optimiser_and_of_a_grid():
    import torch

    for seed in range(5):
        y, logit = validation(seed)
        found = calibration.temperature(y, logit)
        z, target = torch.tensor(logit, dtype=torch.float64), torch.tensor(y)
        log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([log_t], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

        def step(log_t=log_t, optimiser=optimiser, z=z, target=target):
            optimiser.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(z / log_t.exp(), target)
            loss.backward()
            return loss

        optimiser.step(step)
        assert found == pytest.approx(math.exp(log_t.item()), rel=1e-4)
        grid = np.exp(np.linspace(np.log(0.05), np.log(20), 3000))
        losses = [metrics.log_loss(y, logit / t) for t in grid]
        assert found == pytest.approx(grid[np.argmin(losses)], rel=2e-3)


def test_the_temperature_undoes_what_made_a_model_too_sure():
    y, logit = validation(1, 20_000)
    once = calibration.temperature(y, logit)
    assert calibration.temperature(y, 3 * logit) == pytest.approx(3 * once, rel=1e-4)
    assert calibration.temperature(y, logit / once) == pytest.approx(1, rel=1e-4)


def test_unknown_labels_have_no_say_and_one_class_has_no_temperature():
    y, logit = validation(2)
    found = calibration.temperature(np.append(y, np.nan), np.append(logit, 50))
    assert found == calibration.temperature(y, logit)
    nothing = calibration.temperature([1, 1, np.nan], [0.5, -2, 3])
    assert math.isnan(nothing)
    assert nothing.reason == "validation holds one class only"


def test_log_odds_of_zero_stay_at_one_half_whatever_the_temperature():
    t = calibration.temperature([0, 1, 1], [0, 0, 0])
    assert 0.05 <= t <= 20


def test_temperatures_end_where_the_search_does():
    assert calibration.temperature([0, 0, 1, 1], [-1, -2, 1, 2]) == pytest.approx(0.05, rel=1e-3)  # no mistake
    assert calibration.temperature([0, 0, 1, 1], [1, 2, -1, -2]) == pytest.approx(20, rel=1e-3)  # nothing but mistakes


def test_the_reliability_diagram_is_scikit_learns():
    from sklearn.calibration import calibration_curve

    for seed in range(10):
        y, logit = validation(seed, 40 + 60 * seed)
        p = special.expit(logit.astype(np.float64))
        said, are, images = calibration.reliability(y, logit)
        share, mean = calibration_curve(y, p, n_bins=cases.BINS)
        assert said[images > 0] == pytest.approx(mean)
        assert are[images > 0] == pytest.approx(share)
        assert images.tolist() == np.histogram(p, np.linspace(0, 1, cases.BINS + 1))[0].tolist()
        assert np.isnan(said[images == 0]).all()
        assert np.sum(np.abs(said - are)[images > 0] * images[images > 0]) / len(y) == pytest.approx(
            metrics.calibration_error(y, logit)
        )


def test_the_reliability_diagram_holds_certain_answers_and_leaves_out_unknown_labels():
    said, are, images = calibration.reliability([0, 1, np.nan], [-40.0, 40.0, 0.0])
    assert (images[0], images[-1], images.sum()) == (1, 1, 2)
    assert (said[0], are[0], said[-1], are[-1]) == pytest.approx((0, 0, 1, 1))


def test_the_calibration_error_is_torchmetrics():
    import torch
    from torchmetrics.classification import BinaryCalibrationError

    for seed in range(20):
        y, logit = validation(seed, 20 + 40 * seed)
        p = special.expit(logit).astype(np.float32)
        reference = BinaryCalibrationError(n_bins=15, norm="l1")
        expected = float(reference(torch.from_numpy(p), torch.from_numpy(y).long()))
        assert metrics.calibration_error(y, logit) == pytest.approx(expected, abs=1e-6), seed


def test_matthews_correlation_is_scikit_learns():
    from sklearn.metrics import matthews_corrcoef

    for seed in range(20):
        y, logit = validation(seed, 20 + 10 * seed)
        assert metrics.mcc(y, logit, 0.4) == pytest.approx(matthews_corrcoef(y, logit > 0.4), abs=1e-12), seed
    assert metrics.mcc([0, 1, 1], [0.9, 0.8, 0.7]).reason == "every image is called abnormal"


@pytest.mark.parametrize("ratio", [0.05, 0.5, 1.0, 2.0, 5.0])
def test_the_size_of_a_gap_without_chance_is_the_true_one(ratio):
    found = np.abs(np.random.default_rng(0).normal(ratio * 0.7, 0.7, 400_000)).mean()
    true = calibration.without_chance(np.array([found]), np.array([0.7]))
    assert true == pytest.approx(ratio * 0.7, abs=0.02 if ratio >= 0.5 else 0.1)
    assert found > true


def test_gaps_that_chance_alone_makes_are_none_and_gaps_without_chance_stay():
    deviation = np.array([1.0, 0.0, 0.0])
    assert calibration.without_chance(np.array([0.5, 0.3, 0.0]), deviation) == pytest.approx(0.3)
    assert calibration.without_chance(np.array([-50.0, 0.0, 0.0]), deviation) == 50  # chance is nothing beside it
    many = calibration.without_chance(np.array([[0.5, 0, 0], [2.0, 0, 0]]), deviation)
    assert many.shape == (2,)

    def too_large(m: float) -> float:
        """The mean size of N(m, 1), less the 2 that was found."""
        return math.sqrt(2 / math.pi) * math.exp(-m * m / 2) + m * math.erf(m / math.sqrt(2)) - 2

    assert many[1] == pytest.approx(optimize.brentq(too_large, 0, 5), abs=1e-5)


def test_a_bins_interval_is_scipys_of_so_many_cases_and_none_where_there_is_no_case():
    shares, cases_of_bin = np.array([0.25, 0.0, 1.0, np.nan]), np.array([12, 5, 7, 0])
    low, high = calibration.share_interval(shares, cases_of_bin)
    for i in range(3):
        expected = stats.binomtest(round(shares[i] * cases_of_bin[i]), cases_of_bin[i]).proportion_ci(method="wilson")
        assert (low[i], high[i]) == pytest.approx((expected.low, expected.high))
    assert np.isnan([low[3], high[3]]).all()
