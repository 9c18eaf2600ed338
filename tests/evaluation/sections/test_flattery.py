"""A threshold picked on test is the best that could be had there, is called no result, and decides nothing."""

import json

import numpy as np
import pandas as pd
import pytest

from lungdet.evaluation.gathering.models import Model, group
from lungdet.evaluation.gathering.results import collect
from lungdet.evaluation.sections import flattery
from lungdet.evaluation.statistics import metrics, thresholds
from lungdet.evaluation.statistics.cases import Undefined
from lungdet.findings import FINDINGS
from lungdet.page import document
from lungdet.page.html import html
from lungdet.page.markdown import markdown
from tests.fake_runs import fold_of, predictions, write_run


def replicates(folder, *tables: pd.DataFrame, **more) -> list:
    """One model under as many seeds."""
    for seed, table in enumerate(tables):
        write_run(folder / f"run{seed}", "cnn", seed, test=table, **more)
    [some] = group(collect([folder])[0])[0].values()
    return some


def rendered(found: dict, rule: str = "youden", seeds: int = 1) -> str:
    """The section of two models that both found this; JSON-ready."""
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    models = {Model(name): {"seeds": list(range(seeds)), "flattery": found} for name in ("cnn", "cnn_lstm")}
    content = flattery.tell({"task": "abnormal", "models": models, "threshold": {"rule": rule}})
    whole = document.Document("title", "answer", [document.Section("Flattery", content)])
    assert 'class="caution"' in html(whole)
    return markdown(whole)


def every_threshold(table: pd.DataFrame) -> np.ndarray:
    """Below, between and above all log-odds."""
    logit = np.unique(table.logit_abnormal)
    return np.concatenate([[-99], (logit[1:] + logit[:-1]) / 2, [99]])


@pytest.mark.parametrize("rule", ["youden", "f1"])
def test_no_threshold_on_test_does_better_than_the_one_picked_there(tmp_path, rule):
    tables = [predictions({"chestxray14": 70}, seed=1, draw=draw) for draw in (0, 1)]
    some = replicates(tmp_path, *tables)
    found = flattery.of_model(some, [{"abnormal": 0.6}, {"abnormal": 0.4}], rule, None)
    [name] = flattery.SOUGHT[rule]
    score = metrics.METRICS[name]
    best = [max(score(t.target_abnormal, t.logit_abnormal, cut) for cut in every_threshold(t)) for t in tables]
    ours = [score(t.target_abnormal, t.logit_abnormal, cut) for t, cut in zip(tables, (0.6, 0.4), strict=True)]
    half = [score(t.target_abnormal, t.logit_abnormal) for t in tables]
    assert found["at_test_threshold"][name] == pytest.approx(np.mean(best))
    assert found["at_validation_threshold"][name] == pytest.approx(np.mean(ours))
    assert found["at_half"][name] == pytest.approx(np.mean(half))
    assert found["at_test_threshold_sd"][name] == pytest.approx(np.std(best, ddof=1))
    text = rendered(found, rule, seeds=2)
    assert "**Warning:** No results: " in text
    points = 100 * (np.mean(best) - np.mean(ours))
    said = f"{100 * np.mean(best):.1f} % instead of {100 * np.mean(ours):.1f} % ({points:.1f} points more)"
    assert f"With thresholds picked by the rule `{rule}` on the test labels: CNN " in text
    assert said in text
    assert "| CNN | picked on test: no result | " in text


def test_a_promised_sensitivity_is_kept_on_test_by_a_threshold_picked_there(tmp_path):
    table = predictions({"chestxray14": 100}, seed=1)
    some = replicates(tmp_path, table)
    found = flattery.of_model(some, [{"abnormal": 0.6}], "sensitivity", 0.9)
    y, logit = table.target_abnormal, table.logit_abnormal
    fitting = [cut for cut in every_threshold(table) if metrics.recall(y, logit, cut) >= 0.9]
    assert found["at_test_threshold"]["recall"] >= 0.9
    best = max(metrics.specificity(y, logit, cut) for cut in fitting)
    assert found["at_test_threshold"]["specificity"] == pytest.approx(best)
    text = rendered(found, "sensitivity")
    assert f"CNN recall {100 * found['at_test_threshold']['recall']:.1f} % instead of " in text
    assert "| Model | Threshold | Recall | Specificity | Accuracy |" in text
    other = flattery.of_model(some, [{"abnormal": 0.6}], "specificity", 0.8)
    assert other["at_test_threshold"]["specificity"] >= 0.8
    assert "| Model | Threshold | Specificity | Recall | Accuracy |" in rendered(other, "specificity")


def test_a_fixed_threshold_flatters_nobody(tmp_path):
    some = replicates(tmp_path, predictions({"chestxray14": 20}))
    found = flattery.of_model(some, [{"abnormal": 0.3}], "fixed", 0.3)
    assert found is None
    assert flattery.tell({"models": {Model("cnn"): {"flattery": None}}, "threshold": {"rule": "fixed"}}) == []


def test_each_fold_is_judged_at_the_threshold_of_its_own_test_labels(tmp_path):
    for fold in range(2):
        table = predictions({"chestxray14": 60}, seed=fold, skill=0.5)
        write_run(tmp_path / f"fold{fold}", "cnn", 0, test=table, split=fold_of(fold, 2), config={"data.fold": fold})
    [[one]] = group(collect([tmp_path])[0])[0].values()
    cut = pd.Series(np.full(120, 0.4))
    found = flattery.of_model([one], [{"abnormal": cut}], "youden", None)
    right = []
    for result in one.results:
        y, logit = result.test.target_abnormal, result.test.logit_abnormal
        right += ((logit > thresholds.choose(y, logit, "youden").logit) == y).tolist()
    assert found["at_test_threshold"]["accuracy"] == pytest.approx(np.mean(right))
    expected = metrics.accuracy(one.test.target_abnormal, one.test.logit_abnormal, 0.4)
    assert found["at_validation_threshold"]["accuracy"] == pytest.approx(expected)


def test_a_fold_with_one_class_leaves_no_threshold_picked_on_test(tmp_path):
    for fold in range(2):
        table = predictions({"chestxray14": 40}, seed=fold)
        table["target_abnormal"] = table.target_abnormal * fold
        write_run(tmp_path / f"fold{fold}", "cnn", 0, test=table, split=fold_of(fold, 2), config={"data.fold": fold})
    [[one]] = group(collect([tmp_path])[0])[0].values()
    found = flattery.of_model([one], [{"abnormal": pd.Series(np.full(80, 0.4))}], "youden", None)
    assert found["at_test_threshold"]["accuracy"] is None
    reason = "there is no threshold: fold 0: no image is abnormal among the 40 labelled test images"
    assert found["undefined"]["at_test_threshold"]["accuracy"] == reason
    assert found["at_validation_threshold"]["accuracy"] is not None
    assert f"Undefined: {reason}." in rendered(found)


def test_findings_are_averaged_each_at_its_own_threshold(tmp_path):
    table = predictions({"chestxray14": 80}, labels=FINDINGS)
    some = replicates(tmp_path, table, task="findings")
    found = flattery.of_model(some, [dict.fromkeys(FINDINGS, 0.6)], "f1", None)
    best = []
    for name in ("effusion", "nodule"):
        y, logit = some[0].test[f"target_{name}"], some[0].test[f"logit_{name}"]
        best.append(max(metrics.f1(y, logit, cut) for cut in np.append(logit, -99)))
    assert found["at_test_threshold"]["f1"] == pytest.approx(np.mean(best))
    rendered(found, "f1")


def test_nothing_is_claimed_where_validation_had_no_threshold(tmp_path):
    some = replicates(tmp_path, predictions({"chestxray14": 40}))
    found = flattery.of_model(some, [{"abnormal": Undefined("one class in validation")}], "youden", None)
    text = rendered(found)
    assert found["at_validation_threshold"]["accuracy"] is None
    assert "instead of" not in text
    assert "Undefined: there is no threshold: one class in validation." in text


def test_the_stored_thresholds_are_left_alone(tmp_path):
    some = replicates(tmp_path, predictions({"chestxray14": 40}))
    flattery.of_model(some, [{"abnormal": 0.4}], "youden", None)
    assert thresholds.load(some[0].first.run.folder) == {}


@pytest.mark.parametrize("name", ["ten rows", "normal", "unlabelled", "one patient", "one answer"])
def test_damaged_test_parts_are_evaluated_as_far_as_they_can_be(tmp_path, name):
    change = {
        "normal": {"target_abnormal": np.float32(0)},
        "unlabelled": {"target_abnormal": np.float32("nan")},
        "one patient": {"patient_id": "chestxray14/1"},
        "one answer": {"probability_abnormal": np.float32(0.8)},
    }.get(name, {})
    table = predictions({"chestxray14": 10 if name == "ten rows" else 60}).assign(**change)
    for rule, at in (("youden", None), ("f1", None), ("sensitivity", 0.9), ("specificity", 0.9)):
        folder = tmp_path / rule
        found = flattery.of_model(replicates(folder, table), [{"abnormal": 0.4}], rule, at)
        rendered(found, rule)
        if name == "one answer" and rule == "youden":
            assert found["at_test_threshold"]["balanced_accuracy"] == 0.5
