"""Paired comparisons: the permutation test, what is said."""

import numpy as np
import pytest
from scipy import stats

from lungdet.evaluation.gathering.models import Model
from lungdet.evaluation.statistics import metrics, paired
from lungdet.evaluation.statistics.measure import estimated
from lungdet.page import sentences
from tests.simulated import cohort, several_seeds, table


def models(seeds: int, patients: int = 80, better: float = 0.0, seed: int = 0):
    generator = np.random.default_rng(seed)
    y, patient = cohort(generator, patients)
    return tuple(
        [table(y, logit, patient) for logit in several_seeds(generator, y, patient, seeds, skill, 0.05)]
        for skill in (1.0, 1.0 + better)
    )


def compared(first, second) -> dict:
    tables = {Model("cnn"): first, Model("cnn_lstm"): second}
    estimates = {name: estimated(some, ("abnormal",), 500) for name, some in tables.items()}
    [one] = paired.compared(estimates, tables, ("abnormal",), [tuple(tables)])
    return one


def test_exchanging_patients_gives_the_p_value_of_scipys_permutation_test(monkeypatch):
    monkeypatch.setattr(paired, "SIGNS", 4000)
    [first], [second] = models(1, patients=40, better=0.3)
    y, patient = first.target_abnormal.to_numpy(), first.patient_id.to_numpy()
    p = np.stack([first.logit_abnormal, second.logit_abnormal])
    names = ("accuracy", "f1", "brier")
    found = paired.permuted([first], [second], "abnormal")
    for name in names:

        def gap(one, two, name=name):
            exchange = (one == 1)[patient]
            return metrics.METRICS[name](y, np.where(exchange, p[0], p[1])) - metrics.METRICS[name](
                y, np.where(exchange, p[1], p[0])
            )

        marks = np.zeros(40), np.ones(40)
        expected = stats.permutation_test(
            marks, gap, permutation_type="samples", n_resamples=1500, vectorized=False, rng=np.random.default_rng(0)
        ).pvalue
        assert found[name] == pytest.approx(expected, abs=0.05), name


def test_models_that_are_alike_are_rarely_told_apart_and_unlike_ones_are(monkeypatch):
    monkeypatch.setattr(paired, "SIGNS", 300)
    p = [paired.permuted(*models(1, seed=seed), "abnormal")["accuracy"] for seed in range(60)]
    assert np.mean(np.array(p) < 0.05) <= 0.15
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert paired.permuted(*models(1, better=2.0), "abnormal")["accuracy"] < 0.01


def test_what_patients_are_called_changes_no_interval_between_models():
    first, second = models(1, better=0.3)
    names = np.random.default_rng(1).permutation(len(first[0]))  # as another key of pseudonyms would
    renamed = [rows.assign(patient_id=names[rows["patient_id"]]) for rows in second]
    assert compared(first, renamed)["metrics"] == compared(first, second)["metrics"]


def test_below_three_seeds_p_is_the_permutations_and_is_said_of_these_runs_alone():
    one = compared(*models(2, better=1.5))
    assert not one["counts_seeds"]
    accuracy = one["metrics"]["accuracy"]
    assert accuracy["p"] == accuracy["p_permutation"]
    assert sentences.significant(one, "accuracy")
    said = sentences.difference(one, "accuracy")
    low, high = (100 * end for end in accuracy["interval"])
    assert said == (
        f"CNN-LSTM is {100 * accuracy['difference']:.1f} points more accurate than CNN, 95 % interval {low:.1f} to "
        f"{high:.1f}: a difference is shown, for these very runs."
    )
    assert one["metrics"]["auroc"]["p_permutation"] is None


def test_from_three_seeds_on_the_spread_over_seeds_counts():
    one = compared(*models(3))
    assert one["counts_seeds"]
    assert not sentences.significant(one, "accuracy")
    assert sentences.difference(one, "accuracy").endswith(": no difference is shown.")
    p = [one["metrics"][name]["p"] for name in ("accuracy", "precision", "recall", "f1", "auroc")]
    assert [one["metrics"][name]["p_holm"] for name in ("accuracy", "precision", "recall", "f1", "auroc")] != p
    assert "p" not in one["metrics"]["brier"]


def test_different_numbers_of_seeds_are_compared_without_an_exchange():
    first, second = models(3)
    one = compared(first, second[:1])
    assert one["metrics"]["accuracy"]["p_permutation"] is None
    assert one["metrics"]["accuracy"]["p"] is not None


@pytest.mark.parametrize("change", [lambda t: t.assign(target_abnormal=1.0), lambda t: t.assign(patient_id=0)])
def test_one_class_or_one_patient_gives_a_reason_and_no_claim(change):
    first, second = models(1)
    one = compared([change(first[0])], [change(second[0])])
    assert one["metrics"]["auroc"]["interval"] is None
    assert one["metrics"]["auroc"]["undefined"]
    assert not sentences.significant(one, "auroc")
    said = sentences.difference(one, "auroc")
    assert "no difference" in said
    assert one["metrics"]["auroc"]["undefined"] in said
