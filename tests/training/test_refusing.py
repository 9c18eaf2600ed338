"""Training refuses by name what cannot be, before it begins."""

from pathlib import Path

import pytest
import timm
import torch
from hydra.errors import ConfigCompositionException

from lungdet.errors import InputError, RunError
from tests.calling import composed
from tests.small_runs import configured, trained


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("trainer.max_epochs=0", "trainer.max_epochs=0: at least one epoch"),
        ("data.limit=0", "data.limit=0"),
        ("data.image_size=8", "data.image_size=8: model.backbone takes no images of this size"),
        ("+trainer.max_steps=7", "trainer.max_steps=7: .* use trainer.max_epochs"),
        ("+trainer.limit_val_batches=0", "trainer.limit_val_batches=0: .* use data.limit"),
        ("+trainer.val_check_interval=0.5", "trainer.val_check_interval=0.5: .* use trainer.check_val_every_n_epoch"),
        ("+trainer.fast_dev_run=true", "trainer.fast_dev_run=True: .* use experiment=smoke"),
        ("+trainer.check_val_every_n_epoch=4", "trainer.check_val_every_n_epoch=4: at least one epoch"),
        ("trainer.precision=16-mixed", "trainer.precision=16-mixed: a processor does not compute fp16"),
        ("trainer.devices=0", "trainer.devices=0: at least one"),
        ("trainer.num_nodes=2", "trainer.num_nodes=2: several machines"),
        ("data.fractions=[1,0,0]", "data.fractions="),
        ("data.batch_size=0", "data.batch_size=0"),
        ("data.split=by_image", "data.split=by_image: one of random, official"),
        ("data.split=official", "without an official split"),
        ("data.resize=stretch", "stretch"),
        ("model.sequence=diagonals", "model.sequence=diagonals"),
        ("augment.rotation=720", "augment.rotation=720"),
        ("data.train_on=elsewhere", "data.train_on="),
        ("data.train_prevalence=1.5", "data.train_prevalence=1.5"),
        ("+degrade.noise=[-1]", "degrade.noise="),
        ("resume=nowhere", "nowhere: no such folder"),
        ("resume=[a,b]", "auto, or one run folder, is needed"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(table: Path, tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        trained(configured(tmp_path, table, "model=cnn_lstm", change))


def test_a_misspelt_option_is_refused_by_name() -> None:
    with pytest.raises(ConfigCompositionException, match=r"trainer\.max_epoch"):
        composed("train", "trainer.max_epoch=3")


def test_a_run_is_not_tested_on_what_its_published_weights_have_seen(table: Path, tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "file.pth")
    weights = ["model/backbone=timm", "model.backbone.name=test_resnet", f"model.backbone.weights={tmp_path}/file.pth"]
    with pytest.raises(RunError, match=r"file\.pth: these weights have learnt from table, .* of this run's test part"):
        trained(configured(tmp_path, table, *weights, "model.backbone.seen=[table]"))
    assert not (tmp_path / "runs/new").exists()


def test_a_backbone_that_would_never_learn_is_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unfreeze_at=3: training ends before, after trainer\.max_epochs=3"):
        trained(configured(tmp_path, table, "model.backbone.unfreeze_at=3"))


def test_what_lightning_refuses_is_told_in_a_sentence(table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Lightning refuses what trainer\.\* says"):
        trained(configured(tmp_path, table, "trainer.accelerator=tpu"))
