"""Findings are evaluated one by one with their support, averaged over those that can be, and named as what they are."""

import json

import numpy as np
import pytest

from lungdet.errors import RunError
from lungdet.evaluation.gathering.results import EvaluationError, collect
from lungdet.evaluation.sections import by_finding
from lungdet.evaluation.statistics import metrics, thresholds
from lungdet.findings import FINDINGS
from tests.evaluation.summaries import rendered, summarised
from tests.fake_runs import evaluate, predictions, two_runs, write_run


@pytest.fixture(scope="module")
def of_findings(tmp_path_factory):
    """Two seeds of each model of findings, evaluated: (summary, document, folder of the report)."""
    return evaluate(two_runs(tmp_path_factory.mktemp("runs"), seeds=(0, 1), task="findings"))


def test_the_core_is_the_mean_over_findings_with_both_classes(of_findings):
    _, written, out = of_findings
    block = json.loads((out / "metrics.json").read_text())["models"]["cnn"]
    assert set(block["findings"]) == set(FINDINGS)
    areas = [block["findings"][finding]["test"]["auroc"] for finding in ("effusion", "nodule")]
    assert block["test"]["auroc"] == pytest.approx(np.mean(areas))
    assert block["macro"]["findings"] == 2
    assert block["macro"]["of"] == 15
    runs = [run for run in collect([out.parent])[0] if "CNNLSTM" not in run.run.config.model._target_]
    own = [metrics.auroc(run.test.target_nodule, run.test.logit_nodule) for run in runs]
    assert block["findings"]["nodule"]["test"]["auroc"] == pytest.approx(np.mean(own))
    assert "mean AUROC over 2 findings" in written.answer


def test_support_stands_beside_each_finding_and_what_cannot_be_measured_says_why(tmp_path):
    run = write_run(tmp_path / "run", datasets={"chestxray14": 68, "shenzhen": 20}, task="findings")
    numbers, _, out = evaluate(run)
    test = collect([run])[0][0].test
    findings = numbers["models"]["cnn"]["findings"]
    assert (findings["nodule"]["abnormal"], findings["nodule"]["labelled"]) == (test.target_nodule.sum(), 68)
    assert (findings["tuberculosis"]["images"], findings["tuberculosis"]["labelled"]) == (88, 20)
    assert findings["hernia"]["test"]["accuracy"] is None
    assert findings["hernia"]["undefined"]["test"]["auroc"] == "absent on every image that is known"
    text = (out / "report.md").read_text()
    assert f"| nodule (proxy for cancer) | {int(test.target_nodule.sum())} / 68 |" in text
    assert "absent on every image that is known" in text
    assert "Means are over 3 of 15 findings" in text
    only = numbers["models"]["cnn"]["datasets"]["shenzhen"]
    assert only["macro"]["findings"] == 1
    assert only["macro"]["left_out"]["nodule"] == "unknown on every image"


def test_a_metric_undefined_in_one_finding_has_no_mean(tmp_path):
    test = predictions({"chestxray14": 68}, seed=1, labels=FINDINGS).assign(probability_nodule=0.1)
    write_run(tmp_path / "run", test=test, task="findings")
    block = summarised(tmp_path)["models"]["cnn"]
    assert block["test"]["precision"] is None
    assert block["undefined"]["test"]["precision"] == "in 1 of 2 findings (nodule) no image is called abnormal"
    assert block["test"]["recall"] is not None


def test_each_finding_has_a_threshold_of_its_own_from_validation(of_findings):
    numbers, _, out = of_findings
    found = numbers["models"]["cnn"]["findings"]["nodule"]
    recalls = []
    for seed in (0, 1):
        folder = out.parent / f"{seed}_cnn"
        stored = thresholds.load(folder)
        assert set(stored) == set(FINDINGS)
        [run] = collect([folder])[0]
        chosen = thresholds.choose(run.val.target_nodule, run.val.logit_nodule, "youden")
        assert stored["nodule"] == chosen
        assert found["thresholds"][seed] == chosen.as_dict()
        recalls.append(metrics.recall(run.test.target_nodule, run.test.logit_nodule, chosen.logit))
        assert stored["nodule"].logit != stored["effusion"].logit
    assert found["at_validation_threshold"]["recall"] == pytest.approx(np.mean(recalls))


def test_tasks_are_not_mixed_and_labels_must_agree_in_every_finding(tmp_path):
    test = predictions({"chestxray14": 68}, seed=1, labels=("abnormal", *FINDINGS))
    write_run(tmp_path / "a", test=test)
    write_run(tmp_path / "b", "cnn_lstm", test=test, task="findings")
    with pytest.raises(EvaluationError, match=r"task=abnormal, one with task=findings"):
        evaluate(tmp_path)
    relabelled = test.assign(target_mass=1 - test.target_mass)
    write_run(tmp_path / "c" / "a", test=test, task="findings")
    write_run(tmp_path / "c" / "b", "cnn_lstm", test=relabelled, task="findings")
    with pytest.raises(EvaluationError, match="their labels differ, first mass on chestxray14/"):
        evaluate(tmp_path / "c")


def test_damaged_log_odds_of_one_finding_is_named(tmp_path):
    table = predictions({"chestxray14": 20}, labels=FINDINGS)
    table.loc[3, "probability_edema"] = np.nan
    run = write_run(tmp_path / "run", test=table, task="findings")
    with pytest.raises(RunError, match="logit_edema is NaN or infinite on 1 of 20"):
        collect([run])


def test_findings_have_no_published_row_and_a_figure_of_their_own(of_findings):
    numbers, _, out = of_findings
    text = (out / "report.md").read_text()
    assert numbers["published"] == {}
    assert "## Results at threshold 0.5, mean over findings" in text
    assert "![AUROC by finding. effusion: CNN 0." in text
    assert (out / "figures" / "findings.svg").exists()
    assert "mined from reports by text analysis" in text


@pytest.mark.parametrize(
    ("value", "reason"), [(np.nan, "unknown on every image"), (0, "absent on every image that is known")]
)
def test_where_no_finding_can_be_measured_the_text_says_why_and_there_is_no_figure(tmp_path, value, reason):
    test = predictions({"chestxray14": 68}, seed=1, labels=FINDINGS)
    test = test.assign(**{f"target_{finding}": np.float32(value) for finding in FINDINGS})
    numbers = summarised(write_run(tmp_path / "run", test=test, task="findings"))
    text = rendered(by_finding.tell(numbers))
    assert (
        f"No finding can be measured, so there is no mean over findings: atelectasis, {FINDINGS[1].replace('_', ' ')}"
        in text
    )
    assert f"and tuberculosis: {reason}." in text
    assert "mean over 0 findings" not in text
    assert by_finding.pictures(numbers) == []


def test_the_binary_models_sensitivity_is_counted_on_images_that_carry_the_finding(tmp_path):
    folder = write_run(tmp_path / "run", datasets={"chestxray14": 68, "shenzhen": 20})
    numbers, _, out = evaluate(folder)
    [run] = collect([folder])[0]
    carry = run.test[run.test.target_nodule == 1]
    found = numbers["models"]["cnn"]["sensitivity_by_finding"]
    assert found["nodule"]["images"] == len(carry)
    assert found["nodule"]["test"]["recall"] == pytest.approx(np.mean(carry.probability_abnormal > 0.5))
    threshold = numbers["models"]["cnn"]["thresholds"][0]["value"]
    at = np.mean(carry.probability_abnormal > threshold)
    assert found["nodule"]["at_validation_threshold"]["recall"] == pytest.approx(at)
    assert found["tuberculosis"]["images"] == run.test.target_tuberculosis.sum()
    assert found["hernia"]["test"]["recall"] is None
    text = (out / "report.md").read_text()
    assert f"| nodule (proxy for cancer) | {len(carry)} |" in text
    assert "Nodule and mass are a proxy for cancer, not cancer" in text
    assert "On no test image: atelectasis," in text
