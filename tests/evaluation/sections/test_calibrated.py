"""Each run's probabilities are scaled by the temperature that its own validation asks for, and by nothing else."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import special

from lungdet.evaluation.gathering.models import Model, group
from lungdet.evaluation.gathering.results import collect
from lungdet.evaluation.sections import calibrated
from lungdet.evaluation.statistics import calibration, cases, metrics
from lungdet.findings import FINDINGS
from lungdet.page import document
from lungdet.page.html import html
from lungdet.page.markdown import markdown
from tests.fake_runs import fold_of, predictions, write_run


def sure_by(factor: float, seed: int, images: int = 400, labels: tuple[str, ...] = ("abnormal",)) -> pd.DataFrame:
    """Predictions whose labels are drawn from the log-odds before these are multiplied."""
    table = predictions({"chestxray14": images}, seed=seed, labels=labels)
    rng = np.random.default_rng(seed)
    for name in labels:
        logit = 2 * rng.normal(size=images)
        table[f"target_{name}"] = (rng.random(images) < special.expit(logit)).astype(np.float32)
        table[f"logit_{name}"] = factor * logit
        table[f"probability_{name}"] = special.expit(factor * logit)
    return table


def replicates(folder, *runs: tuple[pd.DataFrame, pd.DataFrame], **more) -> list:
    """One model under as many seeds, each with its validation and test predictions."""
    for seed, (val, test) in enumerate(runs):
        write_run(folder / f"run{seed}", "cnn", seed, val=val, test=test, **more)
    [some] = group(collect([folder])[0])[0].values()
    return some


def rendered(found: dict, task: str = "abnormal") -> str:
    """The section of two models that both found this; JSON-ready."""
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    models = {Model(name): {"seeds": [0], "calibrated": found} for name in ("cnn", "cnn_lstm")}
    content = calibrated.tell({"task": task, "models": models})
    whole = document.Document("title", "answer", [document.Section("Calibration", content)])
    assert "<table>" in html(whole)
    return markdown(whole)


def test_a_model_that_is_too_sure_is_cooled_by_its_validation_temperature(tmp_path):
    val, test = sure_by(3, 1), sure_by(3, 2)
    [one] = replicates(tmp_path, (val, test))
    found = calibrated.of_model([one], 50)
    t = calibration.temperature(val.target_abnormal, val.logit_abnormal)
    assert t == pytest.approx(3, rel=0.15)
    assert found["temperatures"] == [{"seed": 0, "part": "test", "abnormal": pytest.approx(t)}]
    scaled = one.test.logit_abnormal / t
    for name in calibrated.METRICS:
        before = metrics.METRICS[name](one.test.target_abnormal, one.test.logit_abnormal)
        after = metrics.METRICS[name](one.test.target_abnormal, scaled)
        assert found["before"]["test"][name] == pytest.approx(before)
        assert found["after"]["test"][name] == pytest.approx(after)
        assert after < before
        low, high = found["after"]["test_interval"][name]
        assert low < high
    text = rendered(found)
    assert f"CNN: temperature {t:.2f}, so on validation it was too sure of itself; scaling takes the" in text
    assert "Temperatures are sought" not in text


def test_every_seed_has_a_temperature_of_its_own(tmp_path):
    runs = [(sure_by(3, 1), sure_by(3, 9)), (sure_by(0.5, 2), sure_by(0.5, 9))]
    some = replicates(tmp_path, *runs)
    found = calibrated.of_model(some, 20)
    temperatures = [calibration.temperature(val.target_abnormal, val.logit_abnormal) for val, _ in runs]
    assert [one["abnormal"] for one in found["temperatures"]] == pytest.approx(temperatures)
    losses = [
        metrics.log_loss(one.test.target_abnormal, one.test.logit_abnormal / t)
        for one, t in zip(some, temperatures, strict=True)
    ]
    assert found["after"]["test"]["log_loss"] == pytest.approx(np.mean(losses))
    middle = math.sqrt(math.prod(temperatures))
    said = f"temperature {middle:.2f} (geometric mean of 2, {temperatures[1]:.2f} to {temperatures[0]:.2f})"
    assert said in rendered(found)


def test_each_folds_images_are_scaled_at_their_own_runs_temperature(tmp_path):
    factors = (4, 0.5)
    for fold, factor in enumerate(factors):
        write_run(
            tmp_path / f"fold{fold}", "cnn", 0, val=sure_by(factor, 10 + fold), test=sure_by(factor, 20 + fold),
            split=fold_of(fold, 2), config={"data.fold": fold},
        )  # fmt: skip
    [[one]] = group(collect([tmp_path])[0])[0].values()
    found = calibrated.of_model([one], 20)
    assert [row["part"] for row in found["temperatures"]] == ["fold 0", "fold 1"]
    y, logit = [], []
    for result, row in zip(one.results, found["temperatures"], strict=True):
        y += result.test.target_abnormal.tolist()
        logit += (result.test.logit_abnormal / row["abnormal"]).tolist()
    assert found["after"]["test"]["brier"] == pytest.approx(metrics.brier(y, logit))
    assert found["after"]["test"]["brier"] < found["before"]["test"]["brier"]


def test_the_reliability_diagram_is_scikit_learns_of_all_seeds_together(tmp_path):
    from sklearn.calibration import calibration_curve

    some = replicates(tmp_path, (sure_by(2, 1), sure_by(2, 9)), (sure_by(2, 2), sure_by(1.5, 9)))
    bins = calibrated.of_model(some, 20)["reliability"]["before"]
    together = pd.concat([one.test for one in some])
    share, mean = calibration_curve(together.target_abnormal, together.probability_abnormal, n_bins=cases.BINS)
    assert [value for value in bins["said"] if value is not None] == pytest.approx(mean, abs=1e-6)
    assert [value for value in bins["are"] if value is not None] == pytest.approx(share)
    assert sum(bins["images"]) == 400  # a seed
    unlike = [one.test.assign(logit_abnormal=logit) for one, logit in zip(some, (-1.0, 1.0), strict=True)]
    both = calibrated._bins(unlike, "abnormal")  # each bin has images of one seed alone
    assert [both["interval"][i] is None for i in range(cases.BINS)] == [count == 0 for count in both["images"]]


def test_one_class_in_validation_leaves_probabilities_as_they_are_and_says_why(tmp_path):
    val = sure_by(2, 1).assign(target_abnormal=np.float32(1))
    found = calibrated.of_model(replicates(tmp_path, (val, sure_by(2, 2))), 20)
    assert found["temperatures"][0]["abnormal"] is None
    assert found["after"] is None
    assert found["before"]["test"]["brier"] is not None
    text = rendered(found)
    assert "CNN: no temperature can be fitted (validation holds one class only (seed 0))." in text
    assert "| CNN | as predicted | " in text
    assert "| CNN | scaled |" not in text


def test_one_run_without_a_temperature_leaves_all_unscaled(tmp_path):
    one_class = sure_by(2, 1).assign(target_abnormal=np.float32(0))
    found = calibrated.of_model(replicates(tmp_path, (sure_by(2, 3), sure_by(2, 9)), (one_class, sure_by(2, 9))), 20)
    assert [row["abnormal"] is None for row in found["temperatures"]] == [False, True]
    assert found["unscaled"] == {"abnormal": "validation holds one class only (seed 1)"}
    assert found["after"] is None
    rendered(found)


def test_findings_have_a_temperature_each_and_means_are_over_those_that_have_one(tmp_path):
    val, test = (sure_by(2, seed, 200, FINDINGS) for seed in (1, 2))
    val["target_hernia"] = 0.0  # cannot be fitted
    test["target_mass"] = 0.0  # cannot be measured
    val[["target_edema", "target_fibrosis"]] = 1 - val[["target_edema", "target_fibrosis"]]
    [one] = replicates(tmp_path, (val, test), task="findings")
    found = calibrated.of_model([one], 20)
    assert set(found["over"]) == set(FINDINGS) - {"hernia", "mass"}
    row = found["temperatures"][0]
    assert row["hernia"] is None
    assert row["mass"] == pytest.approx(calibration.temperature(val.target_mass, val.logit_mass))
    losses = [
        metrics.log_loss(one.test[f"target_{name}"], one.test[f"logit_{name}"] / row[name]) for name in found["over"]
    ]
    assert found["after"]["test"]["log_loss"] == pytest.approx(np.mean(losses))
    text = rendered(found, "findings")
    assert "in some run is in no mean: means of CNN and CNN-LSTM are over 13 findings, without hernia." in text
    assert "Temperatures are sought from 0.05 to 20. At the upper end validation finds" in text
    assert "at an end of what is sought, which says little" in text
    assert "![" not in text


def test_no_finding_that_can_be_measured_is_no_crash(tmp_path):
    val, test = (sure_by(2, seed, 40, FINDINGS) for seed in (1, 2))
    test[[f"target_{name}" for name in FINDINGS]] = np.float32(1)
    found = calibrated.of_model(replicates(tmp_path, (val, test), task="findings"), 20)
    assert found["over"] == []
    assert found["before"]["test"]["brier"] is None
    assert "Undefined: present on every image that is known." in rendered(found, "findings")


@pytest.mark.parametrize("name", ["ten rows", "normal", "unlabelled", "one patient", "one answer", "certain"])
def test_damaged_test_parts_are_evaluated_as_far_as_they_can_be(tmp_path, name):
    change = {
        "normal": {"target_abnormal": np.float32(0)},
        "unlabelled": {"target_abnormal": np.float32("nan")},
        "one patient": {"patient_id": "chestxray14/1"},
        "one answer": {"probability_abnormal": 0.5},
        "certain": {"probability_abnormal": 1.0},
    }.get(name, {})
    test = sure_by(2, 2, 10 if name == "ten rows" else 60).assign(**change)
    found = calibrated.of_model(replicates(tmp_path, (sure_by(2, 1), test)), 30)
    text = rendered(found)
    if name == "unlabelled":
        assert found["before"]["test"]["brier"] is None
        assert "Undefined: no image has a known label." in text
        assert "![Reliability" not in text
    if name == "one answer":
        assert found["before"]["test"] == pytest.approx(found["after"]["test"])
    if name == "one patient":
        assert "[no interval]" in text
    if name == "certain":
        assert found["after"]["test"]["log_loss"] < found["before"]["test"]["log_loss"]  # a mistake costs its log-odds


def test_validation_and_test_that_nobody_needs_to_scale_say_so(tmp_path):
    found = calibrated.of_model(replicates(tmp_path, (sure_by(1, 1, 20_000), sure_by(1, 2))), 20)
    assert found["temperatures"][0]["abnormal"] == pytest.approx(1, abs=0.05)
    assert "so on validation it was about as sure as it should be; scaling takes" in rendered(found)
