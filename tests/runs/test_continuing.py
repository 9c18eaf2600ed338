"""What a run that goes on may be told anew, what is refused by name, and that a damaged one is left as it is."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lungdet.runs import starting
from lungdet.runs.folder import load_run, settled
from tests.runs.cut_runs import config, cut_run, refused, resumed


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
    key = word.lstrip("+").split("=")[0]
    hint = rf"{key} cannot change .* new run, .*model\.backbone\.init_from={cut.folder}.*trainer\.max_epochs"
    refused(resumed(cut, word), hint, word)


def test_a_run_whose_learning_rate_ends_with_its_last_epoch_is_not_made_longer(tmp_path: Path) -> None:
    cosine = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR"}
    cut = cut_run(tmp_path, "cut", schedule=cosine, trainer={"max_epochs": 30, "early_stopping": 8})
    longer = "trainer.max_epochs=60"
    refused(resumed(cut, longer), r"max_epochs=60: .*CosineAnnealingLR\) was planned for 30 epochs", longer)
    for word in ("trainer.max_epochs=30", "trainer.early_stopping=9"):
        with starting.start(resumed(cut, word), [word]) as run:
            assert run.trains_on


@pytest.mark.parametrize("word", ["~trainer.early_stopping", "+trainer.compile=true", "++trainer.max_epochs=9"])
def test_no_key_is_added_to_a_continued_run_or_taken_from_it(tmp_path: Path, word: str) -> None:
    cut = cut_run(tmp_path, "cut")
    refused(resumed(cut, word), r"no key is added.*give trainer\.\w+=VALUE", word)


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
    refused(resumed(cut, *words), f"no epoch would be trained, since {reason}", *words)


@pytest.mark.parametrize("words", [[], ["data.num_workers=0"]])
def test_a_finished_run_is_not_resumed_for_nothing(tmp_path: Path, words: list[str]) -> None:
    run = cut_run(tmp_path, "finished")
    run.finish()
    refused(resumed(run, *words), "is finished", *words)


def test_a_run_without_a_whole_epoch_is_not_resumed(tmp_path: Path) -> None:
    with starting.start(config(tmp_path)) as fresh:
        pass
    refused(resumed(fresh), "no such checkpoint")


@pytest.mark.parametrize("value", ["trainer.max_epochs=many", "trainer.max_epochs=null", "trainer.early_stopping=0"])
@pytest.mark.parametrize("resume", [True, False])
def test_a_trainer_that_could_not_tell_when_to_end_is_refused(tmp_path: Path, value: str, resume: bool) -> None:
    cut = cut_run(tmp_path, "cut")
    asked = resumed(cut, value)
    asked.resume = asked.resume if resume else None
    refused(asked, f"{value.split('=')[0]}=.*: at least one epoch", value)


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
    refused(resumed(cut) if resume else config(tmp_path), "another configuration" if whole else f"{name} is damaged")
