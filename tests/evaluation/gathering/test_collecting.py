"""Runs are found, read or left out with the reason, and compared on the same test part alone."""

import json

import numpy as np
import pytest
from filelock import FileLock

from lungdet.data.dicom.pseudonyms import keyed
from lungdet.errors import RunError
from lungdet.evaluation.gathering.families import require_pairs
from lungdet.evaluation.gathering.results import EvaluationError, collect
from tests.fake_runs import predictions, write_run


def test_a_folder_of_runs_is_searched_and_a_run_named_twice_counts_once(tmp_path):
    one = write_run(tmp_path / "sweep" / "0_cnn_seed0", "cnn", 0)
    two = write_run(tmp_path / "sweep" / "1_cnn_lstm_seed0", "cnn_lstm", 0)
    results, skipped = collect([tmp_path / "sweep", one])
    assert [result.run.folder for result in results] == [one, two]
    assert not skipped


def test_runs_that_cannot_be_evaluated_are_listed_with_the_reason(tmp_path):
    write_run(tmp_path / "0", "cnn", 0)
    write_run(tmp_path / "1", "cnn", 1, finished=False)
    diverged = predictions({"chestxray14": 68})
    diverged.loc[3, "probability_abnormal"] = np.nan
    write_run(tmp_path / "2", "cnn", 2, test=diverged)
    write_run(tmp_path / "4", "cnn", 4)
    (tmp_path / "4" / "predictions" / "val.parquet").write_bytes(b"PAR1 cut off")
    results, skipped = collect([tmp_path])
    assert [result.run.name for result in results] == ["0"]
    reasons = {one.folder.name: one.reason for one in skipped}
    assert "finish the run with: python train.py resume=" in reasons["1"]
    assert "NaN" in reasons["2"]
    assert "val.parquet cannot be read" in reasons["4"]


def test_a_run_that_still_trains_is_left_out_and_not_told_to_be_resumed(tmp_path):
    busy = write_run(tmp_path / "busy", "cnn", 0, finished=False)
    degraded_now = write_run(tmp_path / "degraded now", "cnn", 1)
    with FileLock(busy / ".lock"), FileLock(degraded_now / ".lock"):
        results, skipped = collect([tmp_path])
    [one] = skipped
    assert (one.folder, one.reason) == (busy, "it is being trained; evaluate it when it has finished")
    assert [result.run.folder for result in results] == [degraded_now]


def test_a_run_that_is_named_itself_must_be_whole(tmp_path):
    run = write_run(tmp_path / "cut", finished=False)
    with pytest.raises(RunError, match=f"resume={run}"):
        collect([run])


def test_folders_without_runs_are_refused(tmp_path):
    with pytest.raises(EvaluationError, match="no such folder"):
        collect([tmp_path / "nowhere"])
    with pytest.raises(EvaluationError, match=r"no run in it; a run is a folder that train\.py wrote"):
        collect([tmp_path])
    write_run(tmp_path / "0", finished=False)
    with pytest.raises(EvaluationError, match=r"no run can be evaluated:\n.*no predictions"):
        collect([tmp_path])


@pytest.mark.parametrize("split", [None, {}, {"hash": "1"}, {"parts": {"test": {"hash": "1"}, "val": {}}}])
def test_a_run_without_a_recorded_split_is_refused(tmp_path, split):
    run = write_run(tmp_path / "run")
    (run / "environment.json").write_text(json.dumps({"run": "run", "split": split}))
    with pytest.raises(EvaluationError, match=r"environment\.json records no split"):
        collect([run])


def test_a_run_that_did_not_record_what_a_report_tells_is_refused(tmp_path):
    run = write_run(tmp_path / "run")
    recorded = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({key: recorded[key] for key in recorded.keys() - {"hardware"}}))
    with pytest.raises(EvaluationError, match=r"run: its environment\.json does not say hardware; train anew"):
        collect([run])


@pytest.mark.parametrize("part", ["test", "val"])
def test_damaged_predictions_are_refused_by_run_part_and_count(tmp_path, part):
    table = predictions({"chestxray14": 68})
    nan = table.copy()
    nan.loc[[3, 5], "probability_abnormal"] = np.nan
    with pytest.raises(RunError, match=rf"nan, {part} predictions: .* on 2 of 68 images, the first is chestxray14/"):
        collect([write_run(tmp_path / "nan", **{part: nan})])
    twice = table.copy()
    twice.loc[3, "image_id"] = twice.image_id[0]
    with pytest.raises(RunError, match=f"{part} predictions: 1 image.* more than once.*{twice.image_id[0]}"):
        collect([write_run(tmp_path / "twice", **{part: twice})])
    with pytest.raises(RunError, match=f"{part} predictions: no column dataset"):
        collect([write_run(tmp_path / "lacking", **{part: table.drop(columns="dataset")})])
    with pytest.raises(RunError, match="no image in the table"):
        collect([write_run(tmp_path / "empty", **{part: table.iloc[:0]})])


def test_different_test_parts_are_not_compared_and_both_hashes_are_named(tmp_path):
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two", "cnn_lstm", split_seed=1)
    results, _ = collect([one, two])
    with pytest.raises(EvaluationError, match="their test parts differ") as caught:
        require_pairs(results)
    for part in (str(one), str(two), results[0].test_hash, results[1].test_hash):
        assert part in str(caught.value)


def test_equal_hashes_do_not_excuse_different_images_or_labels(tmp_path):
    table = predictions({"chestxray14": 68}, seed=1)
    one = write_run(tmp_path / "one", test=table)
    other_images = write_run(tmp_path / "images", test=table.iloc[:-1])
    relabelled = table.copy()
    relabelled.loc[4, "target_abnormal"] = 1 - relabelled.target_abnormal[4]
    other_labels = write_run(tmp_path / "labels", test=relabelled)
    environment = (one / "environment.json").read_text()
    unrelated = write_run(tmp_path / "patients", test=table.assign(patient_id=np.roll(table.patient_id, 1)))
    for folder, message in (
        (other_images, "its 67 images .* are not those of the test part"),
        (other_labels, "labels differ"),
        (unrelated, "patient_id differs on 67 image"),
    ):
        (folder / "environment.json").write_text(environment)
        with pytest.raises(EvaluationError, match=message):
            require_pairs(collect([one, folder])[0])


def test_the_order_of_rows_unknown_labels_and_another_key_of_patients_do_not_keep_runs_apart(tmp_path):
    table = predictions({"chestxray14": 68}, seed=1)
    table.loc[3, "target_abnormal"] = np.nan
    one = write_run(tmp_path / "one", test=table)
    two = write_run(tmp_path / "two", "cnn_lstm", test=table.sample(frac=1, random_state=0))
    renamed = table.assign(patient_id=table.patient_id.map(lambda name: keyed(name, b"another key of patients")))
    require_pairs(collect([one, two, write_run(tmp_path / "three", seed=1, test=renamed)])[0])
