"""A run folder is written whole, found again, locked while in use and continued only where there is something to."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from lungdet.errors import RunError
from lungdet.findings import FINDINGS
from lungdet.runs import starting
from lungdet.runs.folder import Run, find_runs, load_run
from lungdet.runs.predictions import prediction_table
from tests.fake_runs import write_run
from tests.runs.cut_runs import config, cut_run


def test_a_new_run_has_its_resolved_configuration_and_environment(tmp_path: Path) -> None:
    with starting.start(config(tmp_path, seed=7)) as run:
        saved = OmegaConf.to_container(OmegaConf.load(run.folder / "config.yaml"), resolve=False)
        assert saved["model"]["seed"] == 7
        assert saved["run_dir"] == str(run.folder)
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["finished"] is None
    assert {"python", "torch", "lightning"} <= environment["versions"].keys()
    assert not load_run(run.folder).finished
    run.finish(epochs=3)
    assert load_run(run.folder).finished
    assert load_run(run.folder).environment["epochs"] == 3


def test_a_finished_run_whose_epochs_are_gone_has_no_best_loss(tmp_path: Path) -> None:
    cut_run(tmp_path, "finished").finish()
    run = load_run(tmp_path / "runs" / "finished")
    assert run.best_loss == 0.5
    (run.folder / "metrics.csv").unlink()
    with pytest.raises(RunError, match=r"metrics\.csv holds no epoch"):
        _ = run.best_loss


def test_facts_that_cannot_be_looked_at_are_refused_by_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"environment.json is damaged \(.*name too long"):
        _ = Run(tmp_path / ("a" * 300)).environment
    assert Run(tmp_path / "not there").environment == {}


@pytest.mark.parametrize("damage", ["empty", "half", "one byte"])
def test_a_damaged_checkpoint_is_said_to_be_and_the_other_one_offered(tmp_path: Path, damage: str) -> None:
    run = cut_run(tmp_path, "cut")
    last, best = (run.folder / "checkpoints" / f"{which}.ckpt" for which in ("last", "best"))
    torch.save({"weights": torch.arange(1000)}, best)
    whole = best.read_bytes()
    middle = len(whole) // 2
    other = bytes([whole[middle] ^ 1])
    damaged = {"empty": b"", "half": whole[:middle], "one byte": whole[:middle] + other + whole[middle + 1 :]}[damage]
    last.write_bytes(damaged)
    message = f"last.ckpt is damaged; .*best.ckpt is whole, and the run goes on from that epoch after: cp {best} {last}"
    with pytest.raises(RunError, match=message), starting.start(config(tmp_path, resume=str(run.folder))):
        pass
    last.write_bytes(whole)
    assert run.checkpoint("last") == last
    best.write_bytes(damaged)
    with pytest.raises(RunError, match=r"best.ckpt is damaged; .*last.ckpt is whole, but"):
        run.checkpoint("best")
    last.write_bytes(damaged)
    with pytest.raises(RunError, match=r"last.ckpt is damaged; start the run anew"):
        run.checkpoint("last")


def test_predictions_come_back_as_written_and_a_missing_part_says_how_to_get_it(tmp_path: Path) -> None:
    with starting.start(config(tmp_path)) as run:
        pass
    manifest = pd.DataFrame(
        {"image_id": ["d/1", "d/2"], "patient_id": "d/p", "dataset": "d", "visit": [0, 1], "age": [40.0, np.nan]}
    ).assign(sex="F", view=None, abnormal=[1.0, np.nan], **dict.fromkeys(FINDINGS, np.nan))
    table = prediction_table(manifest, ["abnormal"], np.array([[0.0], [np.log(3)]]))
    assert table["target_abnormal"].tolist()[0] == 1.0
    run.write_predictions("test", table)
    assert np.allclose(run.predictions("test")["probability_abnormal"], [0.5, 0.75])
    pd.testing.assert_frame_equal(run.predictions("test"), table)
    with pytest.raises(RunError, match=rf"val.parquet: no predictions; .*resume={run.folder}"):
        run.predictions("val")


@pytest.mark.parametrize("key", ["task", "seed", "trainer.max_epochs", "model", "data.sources[1]"])
def test_what_a_stored_configuration_would_fetch_from_this_machine_is_refused_by_key(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    run = cut_run(tmp_path, "foreign", data={"sources": ["a", "b"]})
    stored = OmegaConf.load(run.folder / "config.yaml")
    OmegaConf.update(stored, key, "before ${oc.env:TOKEN}")
    OmegaConf.save(stored, run.folder / "config.yaml")
    with pytest.raises(RunError, match=rf"config\.yaml: {re.escape(key)}: before \${{oc\.env:TOKEN}} would"):
        load_run(run.folder).config  # noqa: B018


def test_a_run_that_is_refused_keeps_nobody_from_going_on_with_another(tmp_path: Path, caplog) -> None:
    cut_run(tmp_path, "own")
    foreign = cut_run(tmp_path, "foreign", started="2026-02-02T00:00:00+00:00")
    path = foreign.folder / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: ${oc.decode:'0'}"))
    with starting.start(config(tmp_path, resume="auto")) as run:
        assert run.name == "own"
    assert "resume=auto passes over a run: " in caplog.text
    assert "foreign/config.yaml" in caplog.text


def test_runs_are_found_below_a_folder_job_10_after_job_9(tmp_path: Path) -> None:
    for name in ("9_cnn", "10_cnn", "1_cnn"):
        cut_run(tmp_path, name)
    (tmp_path / "runs" / "not_a_run").mkdir()
    assert [run.name for run in find_runs(tmp_path)] == ["1_cnn", "9_cnn", "10_cnn"]


@pytest.mark.parametrize("read", [load_run, find_runs])
def test_a_folder_that_is_not_there_is_refused_by_name(read, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere: no such folder"):
        read(tmp_path / "nowhere")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no config\.yaml"):
        load_run(tmp_path)


def test_a_half_written_environment_never_replaces_the_whole_one(tmp_path: Path) -> None:
    with starting.start(config(tmp_path)) as run:
        before = run.environment
        with pytest.raises(TypeError):
            run.record(unwritable=object())
        assert run.environment == before


def test_what_a_run_does_not_say_of_its_data_is_named(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run"))
    facts = run.environment
    del facts["data"]["bits"], facts["data"]["store"]
    (run.folder / "environment.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match=r"environment\.json does not say under data: bits, store"):
        run.data  # noqa: B018


def test_what_a_run_has_recorded_is_read_once_until_another_process_records_more(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run"))
    assert run.environment is run.environment
    load_run(run.folder).record(epochs=7)
    assert run.environment["epochs"] == 7
