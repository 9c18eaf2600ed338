"""The optimizer and the learning rate of each step are what conf names, through warm-up, accumulation and plateau."""

import ast
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from lungdet.errors import InputError
from lungdet.instantiation import instantiate
from lungdet.models.backbone import Backbone, ConvBackbone, TimmBackbone
from lungdet.models.optimisation import Learner
from tests.calling import composed

EPOCHS, STEPS = 4, 10


def rates(*choices: str, warm_up: float = 0, losses: tuple[float, ...] = (1,) * EPOCHS) -> np.ndarray:
    """The learning rate of each step of four epochs of ten, which end in these validation losses."""
    config = composed("train", *choices, f"trainer.max_epochs={EPOCHS}")
    chosen = {group: instantiate(group, config[group]) for group in ("optimizer", "schedule")}
    learner = Learner(0.1, warm_up, **chosen)
    learner.weight, learner.backbone = nn.Parameter(torch.ones(1)), None
    learner.trainer = trainer = SimpleNamespace(max_epochs=EPOCHS, estimated_stepping_batches=EPOCHS * STEPS)
    [optimizer], configs = learner.configure_optimizers()
    trainer.lr_scheduler_configs = [SimpleNamespace(**config) for config in configs]
    found = []
    for loss in losses:
        for _ in range(STEPS):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            for one in configs:
                if one.get("interval") == "step":
                    one["scheduler"].step()
        learner.follow(torch.tensor(loss))
    return np.array(found)


RISE = 15
RISING = 0.1 * (1 / RISE + (1 - 1 / RISE) * np.arange(RISE) / RISE)
"""Of a warm-up of one epoch and a half, from which on the schedule begins."""


def test_the_learning_rate_falls_along_half_a_cosine_until_training_ends() -> None:
    whole, rest = EPOCHS * STEPS, EPOCHS * STEPS - RISE
    assert np.allclose(rates("schedule=cosine"), 0.05 * (1 + np.cos(np.pi * np.arange(whole) / whole)))
    after = 0.05 * (1 + np.cos(np.pi * np.arange(rest) / rest))
    assert np.allclose(rates("schedule=cosine", warm_up=1.5), [*RISING, *after])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_one_cycle_rises_to_the_learning_rate_and_falls_to_nothing_by_the_last_step(optimizer: str) -> None:
    found = rates("schedule=onecycle", "schedule.pct_start=0.25", f"optimizer={optimizer}")
    assert found.max() == pytest.approx(0.1)
    assert found.argmax() == 9
    assert (np.diff(found)[:9] > 0).all()
    assert (np.diff(found)[9:] < 0).all()
    assert found[0] == pytest.approx(0.1 / 25)
    assert found[-1] < 1e-5
    late = rates("schedule=onecycle", f"optimizer={optimizer}", warm_up=1.5)
    assert late.argmax() > RISE
    assert late.max() == pytest.approx(0.1, rel=0.01)  # its height lies between two steps


def test_a_plateau_is_waited_for_once_the_learning_rate_has_risen() -> None:
    stalls = ("schedule=plateau", "schedule.patience=0")
    assert rates(*stalls)[::STEPS].tolist() == [0.1, 0.1, 0.05, 0.025]
    assert rates(*stalls, losses=(4, 3, 2, 1))[::STEPS].tolist() == [0.1] * 4
    found = rates(*stalls, warm_up=1.5)
    assert np.allclose(found, [*RISING, *[0.1] * 15, *[0.05] * 10])  # the first epoch's loss is not compared


def test_without_a_schedule_the_learning_rate_stays() -> None:
    assert (rates("schedule=none") == 0.1).all()
    assert np.allclose(rates("schedule=none", warm_up=1.5), [*RISING, *[0.1] * 25])


def learner(backbone: Backbone, schedule: str) -> Learner:
    optimizer = partial(torch.optim.Adam)
    learner = Learner(0.1, optimizer=optimizer, schedule=partial(getattr(torch.optim.lr_scheduler, schedule)))
    learner.backbone, learner.head = backbone, nn.Linear(1, 1)
    learner.trainer = SimpleNamespace(max_epochs=1, estimated_stepping_batches=10)
    return learner


@pytest.mark.parametrize("schedule", ["ReduceLROnPlateau", "OneCycleLR"])
def test_each_layer_learns_more_slowly_than_the_next_and_the_head_fastest(schedule: str) -> None:
    model = learner(ConvBackbone([2, 2, 2], rate_factor=0.5, layer_decay=0.1), schedule)
    [optimizer], _ = model.configure_optimizers()
    key = "max_lr" if schedule == "OneCycleLR" else "lr"
    found = {parameter: group[key] for group in optimizer.param_groups for parameter in group["params"]}
    assert found.keys() == {*model.parameters()}
    for part, rate in zip([*model.backbone, model.head], [5e-5, 5e-4, 5e-3, 0.1], strict=True):
        assert all(found[parameter] == pytest.approx(rate) for parameter in part.parameters())


@pytest.mark.parametrize(("name", "layers"), [("resnet18", 9), ("vit_tiny_patch16_224", 13)])
def test_timms_layers_learn_so_too(name: str, layers: int) -> None:
    model = learner(TimmBackbone(name, layer_decay=0.5), "ReduceLROnPlateau")
    [optimizer], _ = model.configure_optimizers()
    rates = [group["lr"] for group in optimizer.param_groups]
    assert sorted(rates) == pytest.approx([0.1 * 0.5**above for above in range(layers, -1, -1)])
    found = {parameter: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert found.keys() == {*model.parameters()}
    first, *_, last = model.backbone.network.parameters()
    assert found[first] == min(rates)
    assert found[last] == 0.05


@pytest.mark.parametrize("wrong", ["unfreeze_at=0", "unfreeze_at=True", "rate_factor=0", "layer_decay=1.5"])
def test_a_backbone_that_cannot_learn_so_is_refused_by_its_key(wrong: str) -> None:
    key, value = wrong.split("=")
    with pytest.raises(InputError, match=rf"model\.backbone\.{wrong}: "):
        ConvBackbone([2], **{key: ast.literal_eval(value)})


@pytest.mark.parametrize(
    ("choices", "warm_up", "reason"),
    [
        (("schedule=cosine", "+schedule.patience=3"), 0, r"schedule\.patience=3: CosineAnnealingLR takes no such key"),
        (("schedule=plateau", "schedule.factor=2"), 0, "schedule: ReduceLROnPlateau refuses .* Factor"),
        (("optimizer=sgd", "optimizer.momentum=-1"), 0, "optimizer: SGD refuses .* momentum"),
        (("+optimizer.lr=0.2",), 0, r"optimizer\.lr=0\.2: give it as model\.learning_rate"),
        ((), 5, r"model\.warm_up=5: .* to trainer\.max_epochs=4"),
        ((), -1, r"model\.warm_up=-1: "),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(choices: tuple[str, ...], warm_up: float, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        rates(*choices, warm_up=warm_up)


def test_what_ends_with_training_needs_a_last_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.EPOCHS", -1)
    for choices, warm_up in (("schedule=cosine", 0), ("schedule=plateau", 1)):
        with pytest.raises(InputError, match=r"trainer\.max_epochs=-1: model\.warm_up, and a schedule"):
            rates(choices, warm_up=warm_up)
    for choices in ("schedule=plateau", "schedule=none"):
        rates(choices)
