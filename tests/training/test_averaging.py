"""What is validated and saved is an average of the weights, step by step; what learns is not disturbed."""

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn

from lungdet.training.averaging import LEARNING, Averaging
from lungdet.training.callbacks import LastStep


class Toy(lightning.LightningModule):
    """Two layers, of which the first stays, and a batch norm; notes its weights as each step leaves them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(3, 4).requires_grad_(False), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.steps: list[dict[str, Tensor]] = []
        self.validated: list[dict[str, Tensor]] = []

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return self.network(batch[0]).square().mean()

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps.append(state(self))

    def validation_step(self, *_: Any) -> None:
        self.validated.append(state(self))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD((weight for weight in self.parameters() if weight.requires_grad), lr=0.1)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def loader() -> torch.utils.data.DataLoader:
    """Twelve batches of four."""
    images = torch.randn(48, 3, generator=torch.Generator().manual_seed(0))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images), batch_size=4)


def fitted(folder: Path, decay: float, *more: Callback, **options: Any) -> tuple[Toy, lightning.Trainer]:
    toy = Toy()
    saving = ModelCheckpoint(folder, filename="last", save_on_train_epoch_end=True)
    trainer = lightning.Trainer(
        accelerator="cpu", callbacks=[Averaging(decay), saving, *more], logger=False, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, **options
    )  # fmt: skip
    trainer.fit(toy, loader(), loader())
    return toy, trainer


def average(steps: list[dict[str, Tensor]], decay: float, name: str) -> Tensor:
    """After the steps, by hand."""
    mean = torch.zeros_like(steps[0][name])
    for number, weights in enumerate(steps, 1):
        weight = max(1 - decay, 2 / (1 + number))
        mean = (1 - weight) * mean + weight * weights[name]
    return mean


# Long enough for the average to span all steps; and so short that it is an exponential one from the second on.
@pytest.mark.parametrize(("decay", "batches"), [(0.98, 1), (0.15, 1), (0.98, 5)])
def test_validation_sees_the_average_and_training_its_own_weights(tmp_path: Path, decay: float, batches: int) -> None:
    toy, trainer = fitted(tmp_path, decay, max_epochs=2, accumulate_grad_batches=batches)
    steps = toy.steps[batches - 1 :: batches] if batches == 1 else [toy.steps[i] for i in (4, 9, 11, 16, 21, 23)]
    assert trainer.global_step == len(steps)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for name, value in toy.steps[-1].items():
        weights = [toy.validated[0][name], toy.validated[-1][name], saved["state_dict"][name]]
        assert torch.equal(saved[LEARNING][name], value)
        if not value.is_floating_point():
            assert [int(actual) for actual in weights] == [12, 24, 24]
            continue
        expected = [average(steps, decay, name) for steps in (steps[: len(steps) // 2], steps, steps)]
        for mean, actual in zip(expected, weights, strict=True):
            assert torch.allclose(actual, mean, atol=1e-6), name
        still = name.startswith("network.0")
        assert torch.equal(weights[1], value) is still, name


def test_a_validation_after_the_fit_is_of_the_weights_that_it_is_given(tmp_path: Path) -> None:
    toy, trainer = fitted(tmp_path, 0.98, max_epochs=1)
    given = torch.load(tmp_path / "last.ckpt", weights_only=True)
    changed = given["state_dict"] | {"network.2.bias": torch.tensor([5.0])}
    torch.save(given | {"state_dict": changed}, tmp_path / "given.ckpt")
    for check in (trainer.validate, trainer.predict):
        toy.validated.clear()
        toy.predict_step = toy.validation_step
        check(toy, loader(), ckpt_path=tmp_path / "given.ckpt", weights_only=True)
        assert all(torch.equal(value, toy.validated[0][name]) for name, value in changed.items())


def test_an_epochs_last_step_is_as_long_where_fewer_batches_are_left_for_it(tmp_path: Path) -> None:
    """Twelve batches, five a step."""
    toy, _ = fitted(tmp_path, 0.98, LastStep(), max_epochs=1, accumulate_grad_batches=5)
    other = Toy()
    optimizer = other.configure_optimizers()
    batches = list(loader())
    for step in (batches[:5], batches[5:10], batches[10:]):
        optimizer.zero_grad()
        sum(other.training_step(batch, 0) / len(step) for batch in step).backward()
        optimizer.step()
    assert all(torch.allclose(value, toy.steps[-1][name], atol=1e-6) for name, value in state(other).items())
