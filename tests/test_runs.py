"""A run folder is written whole, found again, locked while in use and continued only where there is something to."""

import json
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from lungdet import runs, starting
from lungdet.findings import FINDINGS
from lungdet.runs import Run, RunError, find_runs, load_run


def config(folder: Path, **changes) -> DictConfig:
    values = {
        "model": {"_target_": "lungdet.models.cnn.CNN", "hidden": 8, "seed": "${seed}"},
        "trainer": {"max_epochs": 3},
        "logger": {"project": None},
        "seed": 0,
        "resume": None,
        "outputs": str(folder),
        "run_dir": str(folder / "runs" / "new"),
    }
    return OmegaConf.create(values | changes)


def cut_run(folder: Path, name: str, started: str = "2026-01-01T00:00:00+00:00", **changes) -> Run:
    """A run that was stopped after its first epochs."""
    with starting.start(config(folder, run_dir=str(folder / "runs" / name), **changes)) as run:
        (run.folder / "checkpoints").mkdir()
        ZipFile(run.folder / "checkpoints" / "last.ckpt", "w").close()
        run.record(started=started)
    return run


def test_a_new_run_has_its_resolved_configuration_and_environment(tmp_path: Path) -> None:
    with starting.start(config(tmp_path, seed=7)) as run:
        saved = OmegaConf.to_container(OmegaConf.load(run.folder / "config.yaml"), resolve=False)
        assert saved["model"]["seed"] == 7
        assert saved["run_dir"] == str(run.folder)
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["finished"] is None
    assert {"python", "torch", "lightning"} <= environment["versions"].keys()
    assert not load_run(run.folder).finished
    runs.finish(run, epochs=3)
    assert load_run(run.folder).finished
    assert load_run(run.folder).environment["epochs"] == 3


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
    said = f"last.ckpt is damaged; .*best.ckpt is whole, and the run goes on from that epoch after: cp {best} {last}"
    with pytest.raises(RunError, match=said), starting.start(config(tmp_path, resume=str(run.folder))):
        pass
    last.write_bytes(whole)
    assert run.checkpoint("last") == last
    best.write_bytes(damaged)
    with pytest.raises(RunError, match=r"best.ckpt is damaged; .*last.ckpt is whole, but"):
        run.checkpoint("best")
    last.write_bytes(damaged)
    with pytest.raises(RunError, match=r"last.ckpt is damaged; start the run anew"):
        run.checkpoint("last")


def test_a_folder_that_holds_another_configurations_run_is_not_trained_over(tmp_path: Path) -> None:
    with starting.start(config(tmp_path)):
        pass
    other = OmegaConf.merge(config(tmp_path), {"seed": 7})
    with pytest.raises(RunError, match="holds a run of another configuration"), starting.start(other):
        pass


def test_the_same_configuration_in_the_same_folder_goes_on_and_is_left_alone_when_finished(tmp_path: Path) -> None:
    with starting.start(config(tmp_path)) as run:
        run.record(split={"hash": "of an attempt without a checkpoint"})
    with starting.start(config(tmp_path)) as again:
        assert again.folder == run.folder
        assert "split" not in again.environment
        (again.folder / "checkpoints").mkdir()
        (again.folder / "checkpoints" / "last.ckpt").touch()
        again.record(epochs=3)
    with starting.start(config(tmp_path)) as cut:
        assert cut.can_continue
        assert cut.environment["epochs"] == 3
        assert not cut.finished
        runs.finish(cut)
    with starting.start(config(tmp_path)) as finished:
        assert finished.finished
        assert finished.changed is None


def test_that_a_finished_run_was_trained_on_another_folders_images_is_said(tmp_path: Path, caplog) -> None:
    with starting.start(config(tmp_path, data={"root": "here"})) as run:
        runs.finish(run)
    for root, said in (("here", False), ("there", True)):
        caplog.clear()
        with starting.start(config(tmp_path, data={"root": root})) as again:
            assert again.finished
        assert ("trained on the images in here" in caplog.text) is said


def test_what_a_run_computes_names_it_and_where_it_lies_does_not(tmp_path: Path) -> None:
    one = config(tmp_path)
    elsewhere = OmegaConf.merge(one, {"outputs": "/elsewhere", "run_dir": "/there", "resume": "auto"})
    assert starting.fingerprint(one) == starting.fingerprint(elsewhere)
    assert starting.fingerprint(one) != starting.fingerprint(OmegaConf.merge(one, {"seed": 7}))


def test_predictions_come_back_as_written_and_a_missing_part_says_how_to_get_it(tmp_path: Path) -> None:
    with starting.start(config(tmp_path)) as run:
        pass
    manifest = pd.DataFrame(
        {"image_id": ["d/1", "d/2"], "patient_id": "d/p", "dataset": "d", "visit": [0, 1], "age": [40.0, np.nan]}
    ).assign(sex="F", view=None, abnormal=[1.0, np.nan], **dict.fromkeys(FINDINGS, np.nan))
    table = runs.prediction_table(manifest, ["abnormal"], np.array([[0.0], [np.log(3)]]))
    assert table["target_abnormal"].tolist()[0] == 1.0
    run.write_predictions("test", table)
    assert np.allclose(run.predictions("test")["probability_abnormal"], [0.5, 0.75])
    pd.testing.assert_frame_equal(run.predictions("test"), table)
    with pytest.raises(RunError, match=rf"val.parquet: no predictions; .*resume={run.folder}"):
        run.predictions("val")


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


def test_resume_auto_continues_the_newest_unfinished_run_of_the_same_configuration(tmp_path: Path) -> None:
    cut_run(tmp_path, "old", "2026-01-01T00:00:00+00:00")
    newest = cut_run(tmp_path, "newer", "2026-01-02T00:00:00+00:00")
    runs.finish(cut_run(tmp_path, "finished", "2026-01-03T00:00:00+00:00"))
    cut_run(tmp_path, "other_seed", "2026-01-04T00:00:00+00:00", seed=1)
    with starting.start(config(tmp_path, resume="auto", logger={"project": "elsewhere"})) as run:
        assert run.folder == newest.folder


def test_resume_auto_starts_anew_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with starting.start(config(tmp_path, resume="auto")) as run:
        assert run.folder == tmp_path / "runs" / "new"
    assert "no unfinished run of this configuration" in caplog.text


def test_resume_auto_leaves_a_run_alone_that_another_process_is_training(tmp_path: Path) -> None:
    busy = cut_run(tmp_path, "busy")
    with (
        starting.start(config(tmp_path, resume=str(busy.folder))),
        starting.start(config(tmp_path, resume="auto")) as run,
    ):
        assert run.folder != busy.folder


def test_a_run_in_use_cannot_be_resumed(tmp_path: Path) -> None:
    busy = cut_run(tmp_path, "busy")
    asked = config(tmp_path, resume=str(busy.folder))
    with starting.start(asked), pytest.raises(RunError, match="another process"), starting.start(asked):
        pass


def test_resume_of_a_folder_keeps_its_configuration_and_takes_single_values(tmp_path: Path) -> None:
    cut = cut_run(tmp_path, "cut", seed=5)
    asked = config(tmp_path, resume=str(cut.folder))
    with starting.start(asked, [f"resume={cut.folder}", "trainer.max_epochs=9"]) as run:
        assert run.folder == cut.folder
        assert (run.config.seed, run.config.trainer.max_epochs) == (5, 9)
        assert load_run(cut.folder).config.trainer.max_epochs == 3
        run.begin(split={"hash": "h", "name": "random"})
    assert load_run(cut.folder).config.trainer.max_epochs == 9


@pytest.mark.parametrize("change", ["model=cnn_lstm", "model/backbone=timm", "experiment=smoke", "+experiment=smoke"])
def test_resume_of_a_folder_refuses_another_group(tmp_path: Path, change: str) -> None:
    cut = cut_run(tmp_path, "cut")
    with (
        pytest.raises(RunError, match="cannot be laid over it"),
        starting.start(config(tmp_path, resume=str(cut.folder)), [change]),
    ):
        pass


def test_resume_of_a_run_with_nothing_to_continue_stops(tmp_path: Path) -> None:
    finished = cut_run(tmp_path, "finished")
    runs.finish(finished)
    with pytest.raises(RunError, match="is finished"), starting.start(config(tmp_path, resume=str(finished.folder))):
        pass
    with starting.start(config(tmp_path)) as fresh:
        pass
    with (
        pytest.raises(RunError, match="no such checkpoint"),
        starting.start(config(tmp_path, resume=str(fresh.folder))),
    ):
        pass


def test_a_half_written_environment_never_replaces_the_whole_one(tmp_path: Path) -> None:
    with starting.start(config(tmp_path)) as run:
        before = run.environment
        with pytest.raises(TypeError):
            run.record(unwritable=object())
        assert run.environment == before
