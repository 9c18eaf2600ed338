"""Which run a command starts, continues or leaves alone, what a continued run may be told anew, and what is refused."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
from lungdet.runs.folder import Run, load_run, settled
from tests.calling import composed
from tests.runs.test_folder import config, cut_run, reach


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def resumed(run: Run, *words: str) -> DictConfig:
    """What Hydra composes of `resume=RUN` and these words."""
    composed = config(run.folder.parents[1], resume=str(run.folder), logger={"project": "lungdet", "tags": []})
    plain = [word.lstrip("+") for word in words if word[0] != "~" and "." in word.split("=")[0]]
    return OmegaConf.merge(composed, OmegaConf.from_dotlist(plain))


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
    with pytest.raises(RunError, match="holds a run of another configuration"), starting.start(other):
        pass


def test_a_new_run_replaces_and_removes_nothing_that_is_not_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "runs" / "new"
    (folder / "predictions").mkdir(parents=True)
    for name in ("notes.txt", "predictions/mine.csv", "metrics.csv", "train.log"):
        (folder / name).write_text("mine")
    before = files(tmp_path)
    with (
        pytest.raises(RunError, match=r"would replace predictions, metrics\.csv, .*hydra\.run\.dir=FOLDER"),
        starting.start(config(tmp_path)),
    ):
        pass
    assert files(tmp_path) == before
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
    before = files(run.folder)
    with (
        pytest.raises(RunError, match=f"{run.folder} is a run of other data: {difference}"),
        starting.start(of_clinic(clinic), ["seed=0"]),
    ):
        pass
    assert files(run.folder) == before


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
    with starting.start(config(tmp_path, resume="auto", logger={"project": "elsewhere"})) as run:
        assert run.folder == newest.folder
        assert run.config.logger.project == "elsewhere"
    assert f"{damaged} is damaged" in caplog.text


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


@pytest.mark.parametrize(
    "word",
    [
        "trainer.max_epochs=9", "trainer.early_stopping=3", "trainer.early_stopping=null", "trainer.compile=true",
        "trainer.gradient_clip_val=0.5", "trainer.accelerator=cpu", "trainer.devices=[0,2]", "trainer.num_nodes=2",
        "data.root=there", "data.store=there", "data.num_workers=0", "data.loader=workers", "logger.project=mine",
        "data.split_file=there.csv",
    ],
)  # fmt: skip
def test_a_continued_run_keeps_its_configuration_but_for_what_may_change(tmp_path: Path, word: str) -> None:
    cut = cut_run(tmp_path, "cut", seed=5)
    with starting.start(resumed(cut, word), [f"resume={cut.folder}", "outputs=elsewhere", word]) as run:
        run.begin(split={"hash": "h", "name": "random"})
    expected = OmegaConf.merge(config(tmp_path, seed=5), OmegaConf.from_dotlist([word]))
    assert load_run(cut.folder).config == settled(expected, cut.folder)


@pytest.mark.parametrize("state", ["cut", "finished"])
@pytest.mark.parametrize(
    "word",
    [
        "model.learning_rate=1", "model.weight_decay=1", "schedule.factor=0.1", "schedule=cosine", "model.frozen=true",
        "optimizer=adamw", "trainer.averaging=0.9", "trainer.averaging=null", "trainer.accumulate_grad_batches=2",
        "model.backbone.widths=[8,16]", "seed=1", "task=findings", "data.image_size=32", "augment.flip=0",
        "trainer.precision=32-true", "model=cnn_lstm", "model/backbone=timm", "experiment=smoke", "+experiment=smoke",
        "trainer=ddp", "run_dir=elsewhere",
    ],
)  # fmt: skip
def test_what_a_continued_run_cannot_change_is_refused_by_name(tmp_path: Path, word: str, state: str) -> None:
    cut = cut_run(tmp_path, "cut")
    if state == "finished":
        cut.finish()
    before = files(cut.folder)
    key = word.lstrip("+").split("=")[0]
    hint = rf"{key} cannot change .* new run, .*model\.backbone\.init_from={cut.folder}.*trainer\.max_epochs"
    with pytest.raises(RunError, match=hint), starting.start(resumed(cut, word), [word]) as run:
        run.begin(split={"hash": "h", "name": "random"})
    assert files(cut.folder) == before


def test_a_run_whose_learning_rate_ends_with_its_last_epoch_is_not_made_longer(tmp_path: Path) -> None:
    cosine = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR"}
    cut = cut_run(tmp_path, "cut", schedule=cosine, trainer={"max_epochs": 30, "early_stopping": 8})
    with (
        pytest.raises(RunError, match=r"max_epochs=60: .*CosineAnnealingLR\) was planned for 30 epochs"),
        starting.start(resumed(cut, "trainer.max_epochs=60"), ["trainer.max_epochs=60"]),
    ):
        pass
    for word in ("trainer.max_epochs=30", "trainer.early_stopping=9"):
        with starting.start(resumed(cut, word), [word]) as run:
            assert run.trains_on


@pytest.mark.parametrize("word", ["~trainer.early_stopping", "+trainer.compile=true", "++trainer.max_epochs=9"])
def test_no_key_is_added_to_a_continued_run_or_taken_from_it(tmp_path: Path, word: str) -> None:
    cut = cut_run(tmp_path, "cut")
    with (
        pytest.raises(RunError, match=r"no key is added.*give trainer\.\w+=VALUE"),
        starting.start(resumed(cut, word), [word]),
    ):
        pass


@pytest.mark.parametrize("state", ["cut", "fitted", "finished"])
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["trainer.max_epochs=2"], r"5 are trained already; give trainer\.max_epochs=6"),
        (["trainer.max_epochs=5", "degrade.noise=[1]"], "5 are trained already"),
        (["trainer.max_epochs=60"], r"8 epochs have brought no lower .* trainer\.early_stopping=9 or more, or null"),
        (["trainer.max_epochs=60", "trainer.early_stopping=4"], "8 epochs have brought no lower"),
        (["trainer.max_epochs=5", "trainer.early_stopping=null"], "5 are trained already"),
        (["trainer.gradient_clip_val=1"], "8 epochs have brought no lower"),
    ],
)
def test_a_run_that_would_train_no_epoch_is_left_as_it_is(
    tmp_path: Path, state: str, words: list[str], reason: str
) -> None:
    cut = cut_run(tmp_path, "cut", epochs=5, stalled=8, trainer={"max_epochs": 30, "early_stopping": 8})
    cut.record(fitted=state != "cut", finished="today" if state == "finished" else None)
    before = files(cut.folder)
    with (
        pytest.raises(RunError, match=f"no epoch would be trained, since {reason}"),
        starting.start(resumed(cut, *words), words),
    ):
        pass
    assert files(cut.folder) == before


@pytest.mark.parametrize("words", [[], ["data.num_workers=0"]])
def test_a_finished_run_is_not_resumed_for_nothing(tmp_path: Path, words: list[str]) -> None:
    run = cut_run(tmp_path, "finished")
    run.finish()
    with pytest.raises(RunError, match="is finished"), starting.start(resumed(run, *words), words):
        pass


def test_a_run_without_a_whole_epoch_is_not_resumed(tmp_path: Path) -> None:
    with starting.start(config(tmp_path)) as fresh:
        pass
    with pytest.raises(RunError, match="no such checkpoint"), starting.start(resumed(fresh)):
        pass


@pytest.mark.parametrize("value", ["trainer.max_epochs=many", "trainer.max_epochs=null", "trainer.early_stopping=0"])
@pytest.mark.parametrize("resume", [True, False])
def test_a_trainer_that_could_not_tell_when_to_end_is_refused(tmp_path: Path, value: str, resume: bool) -> None:
    cut = cut_run(tmp_path, "cut")
    asked = resumed(cut, value)
    before = files(tmp_path)
    with (
        pytest.raises(InputError, match=f"{value.split('=')[0]}=.*: at least one epoch"),
        starting.start(asked if resume else OmegaConf.merge(asked, {"resume": None}), [value]),
    ):
        pass
    assert files(tmp_path) == before


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "abc"])
def test_a_seed_that_nothing_can_be_drawn_from_is_refused_before_a_folder_is_made(tmp_path: Path, seed: object) -> None:
    config = OmegaConf.merge(resumed(cut_run(tmp_path, "cut")), {"resume": None, "seed": seed})
    before = files(tmp_path)
    with pytest.raises(InputError, match=f"seed={seed}: a whole number from 0"), starting.start(config):
        pass
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", "model: {_target_: lungdet.models.cnn.CNN"),
        ("config.yaml", "- a list"),
        ("config.yaml", "seed: 0\ndata:\nmodel: {}\nlogger: {}\n"),
        ("config.yaml", "\x00"),
        ("environment.json", '{"started": "2026'),
        ("environment.json", "[]"),
        ("metrics.csv", None),
        ("metrics.csv", ""),
        ("metrics.csv", "epoch,val/loss\n0,0.5\n"),
        ("metrics.csv", "epoch\n0\n1\n"),
        ("checkpoints/last.ckpt", ""),
        ("checkpoints/last.ckpt", "no checkpoint"),
    ],
)
@pytest.mark.parametrize("resume", [True, False])
def test_a_damaged_run_is_refused_by_file(tmp_path: Path, name: str, content: str | None, resume: bool) -> None:
    cut = cut_run(tmp_path, "new")
    if content is None:
        (cut.folder / name).unlink()
    else:
        (cut.folder / name).write_text(content)
    whole = name == "config.yaml" and content.startswith("seed") and not resume  # then of another configuration
    before = files(cut.folder)
    with (
        pytest.raises(RunError, match="another configuration" if whole else f"{name} is damaged"),
        starting.start(resumed(cut) if resume else config(tmp_path)),
    ):
        pass
    assert files(cut.folder) == before


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
