"""The optimizer and the learning rate of each step are what conf names, through warm-up, accumulation and plateau."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from lungdet.errors import InputError
from lungdet.instantiation import instantiate
from lungdet.models.optimisation import Learner
from tests.calling import CHECKOUT

EPOCHS, STEPS = 4, 10


def rates(*choices: str, warm_up: float = 0, losses: tuple[float, ...] = (1,) * EPOCHS) -> np.ndarray:
    """The learning rate of each step of four epochs of ten, which end in these validation losses."""
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        config = compose("train", [*choices, f"trainer.max_epochs={EPOCHS}"])
    chosen = {group: instantiate(group, config[group]) for group in ("optimizer", "schedule")}
    learner = Learner(0.1, warm_up, **chosen)
    learner.weight = nn.Parameter(torch.ones(1))
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


def test_a_plateau_is_waited_for_once_the_learning_rate_has_risen() -> None:
    stalls = ("schedule=plateau", "schedule.patience=0")
    assert rates(*stalls)[::STEPS].tolist() == [0.1, 0.1, 0.05, 0.025]
    assert rates(*stalls, losses=(4, 3, 2, 1))[::STEPS].tolist() == [0.1] * 4
    found = rates(*stalls, warm_up=1.5)
    assert np.allclose(found, [*RISING, *[0.1] * 15, *[0.05] * 10])  # the first epoch's loss is not compared


def test_without_a_schedule_the_learning_rate_stays() -> None:
    assert (rates("schedule=none") == 0.1).all()
    assert np.allclose(rates("schedule=none", warm_up=1.5), [*RISING, *[0.1] * 25])


@pytest.mark.parametrize(
    ("choices", "warm_up", "reason"),
    [
        (("schedule=cosine", "+schedule.patience=3"), 0, "schedule: CosineAnnealingLR refuses .* 'patience'"),
        (("schedule=plateau", "schedule.factor=2"), 0, "schedule: ReduceLROnPlateau refuses .* Factor"),
        (("optimizer=sgd", "optimizer.momentum=-1"), 0, "optimizer: SGD refuses .* momentum"),
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
