"""Which run a command starts, goes on with or leaves alone, and where its log goes."""

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pandas as pd
import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lungdet.errors import InputError, RunError
from lungdet.machine import launching
from lungdet.runs import identity, starting
from lungdet.runs.folder import Run, load_run
from lungdet.runs.locking import locked
from tests.calling import composed
from tests.runs.cut_runs import config, cut_run, files, reach, refused, resumed


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """A table of four images, and a split of them; no image is ever opened."""
    for name in "abcd":
        (tmp_path / f"{name}.png").write_bytes(b"png")
    rows = {"path": [f"{name}.png" for name in "abcd"], "patient_id": [1, 1, 2, 3], "abnormal": [0, 0, 1, 1]}
    pd.DataFrame(rows).to_csv(tmp_path / "clinic.csv", index=False)
    split = {"image_id": [f"table/{name}" for name in "abcd"], "split": ["train", "train", "val", "test"]}
    pd.DataFrame(split).to_csv(tmp_path / "split.csv", index=False)
    return tmp_path


def of_clinic(clinic: Path, **changes) -> DictConfig:
    data = {
        "_target_": "lungdet.data.sources.table.TableDataModule",
        "table": str(clinic / "clinic.csv"),
        "split": "file",
    }
    data |= {"split_file": str(clinic / "split.csv"), "store": "nowhere", "root": None}
    return config(clinic, data=data, **changes)


def finished(config: DictConfig) -> Run:
    with starting.start(config) as run:
        reach(run, 3)
        run.record(data={"identity": instantiate(config.data).identity})
        run.finish()
    return run


def attempt(config: DictConfig) -> None:
    """A run that a mistake of the user's ends before an epoch is whole."""
    with suppress(InputError), starting.start(config) as run:
        for name in ("predictions", "checkpoints"):
            (run.folder / name).mkdir(exist_ok=True)
        raise InputError("a mistake")


def test_a_folder_that_holds_another_configurations_run_is_not_trained_over(tmp_path: Path) -> None:
    with starting.start(config(tmp_path)):
        pass
    other = OmegaConf.merge(config(tmp_path), {"seed": 7})
    refused(other, "holds a run of another configuration")


def test_a_new_run_replaces_and_removes_nothing_that_is_not_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "runs" / "new"
    (folder / "predictions").mkdir(parents=True)
    for name in ("notes.txt", "predictions/mine.csv", "metrics.csv", "train.log"):
        (folder / name).write_text("mine")
    refused(config(tmp_path), r"would replace predictions, metrics\.csv, .*hydra\.run\.dir=FOLDER")
    assert not (folder / ".lock").exists()
    (folder / "metrics.csv").unlink()
    (folder / "predictions").rename(folder / "wandb")
    before = files(tmp_path)
    with caplog.at_level("INFO"):
        attempt(config(tmp_path))
    assert files(tmp_path) == before
    assert {path.name for path in folder.iterdir()} == {"notes.txt", "wandb", "train.log"}
    assert "what was written for it is removed; what else is there stays: notes.txt, train.log, wandb" in caplog.text


def test_the_best_weights_of_a_run_whose_last_are_gone_are_not_removed(tmp_path: Path) -> None:
    run = cut_run(tmp_path, "new")
    run.checkpoint("last").rename(run.folder / "checkpoints" / "best.ckpt")
    attempt(config(tmp_path))
    assert (run.folder / "checkpoints" / "best.ckpt").exists()


def test_the_same_configuration_in_the_same_folder_goes_on_as_this_command_serves_it(tmp_path: Path) -> None:
    with starting.start(config(tmp_path)) as run:
        run.record(split={"hash": "of an attempt without a checkpoint"})
    with starting.start(config(tmp_path)) as again:
        assert again.folder == run.folder
        assert "split" not in again.environment
        reach(again, 2)
        again.record(epochs=2)
    with starting.start(config(tmp_path, data={"root": "here", "num_workers": 3})) as cut:
        assert cut.can_continue
        assert cut.environment["epochs"] == 2
        assert not cut.finished
        assert cut.config.data.num_workers == 3


def test_a_finished_run_is_left_alone_and_remembers_who_else_asked_for_it(clinic: Path) -> None:
    run = finished(of_clinic(clinic))
    asked = of_clinic(clinic, logger={"project": "elsewhere"})
    for words in ([], ["seed=0"], ["seed=0"]):
        with starting.start(asked, words) as again:
            assert again.finished
            assert again.changed is None
    assert load_run(run.folder).commands == [[], ["seed=0"]]


@pytest.mark.parametrize("resume", [None, "auto"])
def test_a_run_that_another_process_finishes_before_its_lock_is_had_is_not_trained_over(
    clinic: Path, monkeypatch: pytest.MonkeyPatch, resume: str | None
) -> None:
    asked = of_clinic(clinic)
    if resume:
        with starting.start(asked) as cut:
            reach(cut, 2)

    def late(run: Run) -> AbstractContextManager[None]:
        monkeypatch.undo()
        finished(asked)
        return locked(run)

    monkeypatch.setattr(starting, "locked", late)
    with starting.start(of_clinic(clinic, resume=resume)) as run:
        assert run.finished
        assert run.changed is None


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("label", r"labels \(4 known, 2 positive then; 4 known, 1 positive now\)\. "),
        ("patient", r"patients \(3 patients then; 4 patients now\); ids"),
        ("key", r"ids \(patients go by other ids, as under another key, data.pseudonymize\)\. "),
        ("image", r"images \(4 images, 3 patients then; 3 images, 2 patients now\)\. "),
        ("pixels", r"pixels \(files of other names, sizes or times of change\)\. "),
        ("split", r"split \(the file"),
    ],
)
def test_a_finished_run_of_other_data_is_not_taken_for_this_ones(clinic: Path, change: str, difference: str) -> None:
    run = finished(of_clinic(clinic))
    rows, split = pd.read_csv(clinic / "clinic.csv"), pd.read_csv(clinic / "split.csv")
    if change == "label":
        rows.loc[3, "abnormal"] = 0
    elif change == "patient":
        rows.loc[1, "patient_id"] = 9
    elif change == "key":
        rows["patient_id"] = 10 - rows["patient_id"]
    elif change == "image":
        (clinic / "d.png").unlink()
    elif change == "pixels":
        os.utime(clinic / "a.png", ns=(0, 0))
    else:
        split.loc[0, "split"] = "test"
    rows.to_csv(clinic / "clinic.csv", index=False)
    split.to_csv(clinic / "split.csv", index=False)
    refused(of_clinic(clinic), f"{run.folder} is a run of other data: {difference}", "seed=0")


def test_a_run_is_not_trained_on_with_another_split_of_the_same_data(clinic: Path) -> None:
    run = finished(of_clinic(clinic))
    run.record(split={"hash": "abc", "name": "random"})
    data = instantiate(run.config.data)
    with pytest.raises(RunError, match=r"was trained on split abc \(random\), the data now give split def"):
        identity.require_data(run, data.identity, "def")


def test_what_a_run_computes_names_it_and_where_it_lies_does_not(tmp_path: Path) -> None:
    mine = config(tmp_path)
    elsewhere = {"outputs": "/elsewhere", "run_dir": "/there", "resume": "auto", "data": {"store": "/there"}}
    assert identity.fingerprint(mine) == identity.fingerprint(OmegaConf.merge(mine, elsewhere))
    for other in ({"seed": 7}, {"data": {"root": "there"}}):  # a sweep over data.root trains on each
        assert identity.fingerprint(mine) != identity.fingerprint(OmegaConf.merge(mine, other))


def test_resume_auto_continues_the_newest_unfinished_run_of_the_same_configuration(tmp_path: Path, caplog) -> None:
    cut_run(tmp_path, "old", "2026-01-01T00:00:00+00:00")
    newest = cut_run(tmp_path, "newer", "2026-01-02T00:00:00+00:00")
    cut_run(tmp_path, "finished", "2026-01-03T00:00:00+00:00").finish()
    cut_run(tmp_path, "other_seed", "2026-01-04T00:00:00+00:00", seed=1)
    damaged = cut_run(tmp_path, "damaged", "2026-01-05T00:00:00+00:00").folder / "environment.json"
    damaged.write_text(damaged.read_text()[:20])
    lock = cut_run(tmp_path, "linked", "2026-01-06T00:00:00+00:00").folder / ".lock"
    lock.unlink()
    lock.symlink_to(tmp_path / "elsewhere")
    with starting.start(config(tmp_path, resume="auto", logger={"project": "elsewhere"})) as run:
        assert run.folder == newest.folder
        assert run.config.logger.project == "elsewhere"
    assert f"{damaged} is damaged" in caplog.text
    assert f"symbolic links: '{lock}'" in caplog.text


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


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "abc"])
def test_a_seed_that_nothing_can_be_drawn_from_is_refused_before_a_folder_is_made(tmp_path: Path, seed: object) -> None:
    config = OmegaConf.merge(resumed(cut_run(tmp_path, "cut")), {"resume": None, "seed": seed})
    refused(config, f"seed={seed}: a whole number from 0")


@contextmanager
def hydra(folder: Path) -> Iterator[Path]:
    """A job for which Hydra has made this folder, and logs into it."""
    folder.mkdir(parents=True)
    words = ["hydra.job.name=train", f"hydra.runtime.output_dir={folder}"]
    config = composed("train", *words, hydra=True)
    root, instance = logging.getLogger(), HydraConfig.instance()
    handlers, level, before = root.handlers[:], root.level, instance.cfg
    try:
        instance.set_config(config)
        configure_log(HydraConfig.get().job_logging)
        yield folder
    finally:
        root.handlers[:], instance.cfg = handlers, before
        root.setLevel(level)


@pytest.mark.parametrize("resume", ["auto", "folder"])
def test_a_continued_runs_own_log_goes_on_and_no_other_folder_stays(tmp_path: Path, resume: str) -> None:
    cut = cut_run(tmp_path, "cut")
    (cut.folder / "train.log").write_text("epoch 2/3\n")
    asked = config(tmp_path, resume="auto" if resume == "auto" else str(cut.folder))
    with hydra(tmp_path / "runs" / "new") as folder:
        with starting.start(asked) as run:
            logging.getLogger("train").info("epoch 3/3")
        assert launching._logging()["handlers"]["file"]["filename"] == str(cut.folder / "train.log")
    assert run.folder == cut.folder
    lines = (cut.folder / "train.log").read_text().splitlines()
    assert [line.split("] ")[-1] for line in lines] == ["epoch 2/3", f"continuing {cut.folder}", "epoch 3/3"]
    assert not folder.exists()


def test_a_link_in_place_of_a_continued_runs_log_is_replaced_not_followed(tmp_path: Path) -> None:
    cut, foreign = cut_run(tmp_path, "cut"), tmp_path / "foreign"
    foreign.write_text("mine\n")
    (cut.folder / "train.log").symlink_to(foreign)
    with hydra(tmp_path / "runs" / "new"), starting.start(config(tmp_path, resume=str(cut.folder))):
        logging.getLogger("train").info("epoch 3/3")
    assert foreign.read_text() == "mine\n"
    assert "epoch 3/3" in (cut.folder / "train.log").read_text()


def test_a_refused_command_leaves_no_empty_folder(tmp_path: Path) -> None:
    asked = config(tmp_path, resume="nowhere")
    with hydra(tmp_path / "new") as folder, pytest.raises(RunError, match="no such folder"), starting.start(asked):
        pass
    assert not folder.exists()


def test_a_new_runs_log_stays_in_its_folder(tmp_path: Path) -> None:
    with hydra(tmp_path / "runs" / "new"), starting.start(config(tmp_path)) as run:
        logging.getLogger("train").info("epoch 1/3")
    assert (run.folder / "train.log").read_text().count("epoch 1/3") == 1
