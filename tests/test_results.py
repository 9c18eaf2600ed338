"""Runs are read with their predictions, and what is wrong with these is said before anything is computed."""

import pandas as pd
import pytest
from fake_runs import predictions, write_run

from lungdet.evaluation.results import EvaluationError, collect

BAD = {
    "a label that is none": (lambda t: t.assign(target_abnormal=t.target_abnormal + 1), "labels are 1, 0 or missing"),
    "probabilities in words": (lambda t: t.assign(probability_abnormal="high"), "not numbers"),
    "an image without a patient": (
        lambda t: t.assign(patient_id=t.patient_id.where(t.index > 0)),
        "patient_id is missing",
    ),
    "an image twice": (lambda t: t.assign(image_id=t.image_id.where(t.index > 0, t.image_id[1])), "more than once"),
    "no probability": (lambda t: t.assign(probability_abnormal=float("nan")), "NaN or outside"),
    "log-odds that are none": (lambda t: t.assign(logit_abnormal=float("nan")), "logit_abnormal is NaN"),
    "a part of the images": (lambda t: t.iloc[:20], "are not those of the test part"),
}


@pytest.mark.parametrize("name", BAD)
def test_predictions_that_are_wrong_are_refused_and_say_where(tmp_path, name):
    run = write_run(tmp_path / "run")
    path = run / "predictions" / "test.parquet"
    change, message = BAD[name]
    change(pd.read_parquet(path)).to_parquet(path)
    with pytest.raises(EvaluationError, match=message):
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


def test_validation_predictions_of_tested_patients_are_refused(tmp_path):
    table = predictions({"chestxray14": 68}, seed=1)
    with pytest.raises(EvaluationError, match="stand in the predictions of validation and of test"):
        collect([write_run(tmp_path / "run", test=table, val=table)])
