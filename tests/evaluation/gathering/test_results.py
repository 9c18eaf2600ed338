"""Runs are read with their predictions, and what is wrong with these is said before anything is computed."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from lungdet.data.serving.views import ITSELF, views
from lungdet.errors import InputError
from lungdet.evaluation.gathering.results import EvaluationError, collect, renewed
from lungdet.evaluation.statistics import measure
from lungdet.runs.folder import Run
from lungdet.runs.predictions import prediction_table
from tests.fake_runs import predictions, write_run

BAD = {
    "a label that is none": (lambda t: t.assign(target_abnormal=t.target_abnormal + 1), "labels are 1, 0 or missing"),
    "log-odds in words": (lambda t: t.assign(logit_abnormal="high"), "not numbers"),
    "an image without a patient": (
        lambda t: t.assign(patient_id=t.patient_id.where(t.index > 0)),
        "patient_id is missing",
    ),
    "an image twice": (lambda t: t.assign(image_id=t.image_id.where(t.index > 0, t.image_id[1])), "more than once"),
    "no log-odds": (lambda t: t.drop(columns="logit_abnormal"), "no column logit_abnormal"),
    "log-odds that are none": (lambda t: t.assign(logit_abnormal=float("nan")), "logit_abnormal is NaN or infinite"),
    "a part of the images": (lambda t: t.iloc[:20], "are not those of the test part"),
}


@pytest.mark.parametrize("name", BAD)
def test_predictions_that_are_wrong_are_refused_and_say_where(tmp_path, name):
    run = write_run(tmp_path / "run")
    path = run / "predictions" / "test.parquet"
    change, message = BAD[name]
    change(pd.read_parquet(path)).to_parquet(path)
    with pytest.raises(InputError, match=message):
        collect([run])


def test_a_run_whose_configuration_is_refused_is_skipped_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", "hunter2")
    write_run(tmp_path / "own")
    foreign = write_run(tmp_path / "foreign", config={"model.hidden": "${oc.env:TOKEN}"})
    results, [skipped] = collect([tmp_path])
    assert [one.run.name for one in results] == ["own"]
    assert skipped.folder == foreign.resolve()
    assert "model.hidden: ${oc.env:TOKEN} would be filled in" in skipped.reason
    assert "hunter2" not in skipped.reason


def test_a_run_that_is_far_too_sure_is_ranked_by_its_log_odds_and_pays_them_for_a_mistake(tmp_path):
    write_run(tmp_path / "run", datasets={"chestxray14": 400})
    table = predictions({"chestxray14": 400}, seed=1)
    manifest = table.rename(columns=lambda column: column.removeprefix("target_"))
    logit = 30 * (table["logit_abnormal"] + 1).to_numpy(np.float32)
    Run(tmp_path / "run").write_predictions("test", prediction_table(manifest, ["abnormal"], logit[:, None]))
    [result] = collect([tmp_path / "run"])[0]
    found = measure.measured(result.test, ("abnormal",))
    assert found["auroc"] == pytest.approx(roc_auc_score(table["target_abnormal"], logit))
    assert found["log_loss"] == pytest.approx(np.logaddexp(0, np.where(table["target_abnormal"], -logit, logit)).mean())


def test_what_is_not_of_the_new_predictions_goes_with_the_old_ones(tmp_path):
    [result] = collect([write_run(tmp_path / "run", guesses={"sex": 0.6})])[0]
    whole = replace(result, train=result.val, degraded=result.test)
    other = result.test.assign(image_id="other/" + result.test["image_id"])
    mirrored = views(flip=True, shift=0)
    seen = renewed(whole, {"val": result.val, "test": result.test}, mirrored, external=False)
    assert (seen.train, seen.degraded, seen.views) == (None, None, mirrored)
    assert seen.shortcuts is result.shortcuts is not None
    scored = renewed(whole, {"test": other}, (ITSELF,), external=True)
    assert scored.shortcuts is None
    assert scored.train is whole.train
    assert scored.val is result.val
    assert scored.test["image_id"].str.startswith("other/").all()


def test_validation_predictions_of_tested_patients_are_refused(tmp_path):
    table = predictions({"chestxray14": 68}, seed=1)
    with pytest.raises(EvaluationError, match="stand in the predictions of validation and of test"):
        collect([write_run(tmp_path / "run", test=table, val=table)])


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [(BOMB, r"config.yaml, line \d+: \*a0 stands for"), ("x: " + "[" * 99, "nested more than 50 deep")],
)
def test_a_configuration_that_grows_beyond_memory_is_refused(tmp_path, text, reason):
    run = write_run(tmp_path / "run")
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + text)
    with pytest.raises(InputError, match=reason):
        collect([run])
