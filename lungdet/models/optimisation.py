"""How weights are learnt: by which optimizer, and with which learning rate at each step."""

import sys
from functools import partial
from inspect import signature
from typing import Any

import lightning
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR, ReduceLROnPlateau, SequentialLR

from lungdet.errors import InputError
from lungdet.models.backbone import Backbone

LENGTHS = ("T_max", "total_iters", "total_steps")
"""What torch's schedules call the number of steps that they are made for."""


class Learner(lightning.LightningModule):
    """Learns by the optimizer and the learning rates that a configuration names.

    Args:
        learning_rate: the highest.
        warm_up: epochs, or a part of one, in which it rises to where the schedule begins: to that, but with one cycle
            to its low start.
        weight_decay: the optimizer's.
        optimizer: a class of `torch.optim` with `optimizer.*`; who only predicts needs none.
        schedule: a class of `torch.optim.lr_scheduler` with `schedule.*`, likewise. What the configuration leaves out
            of the number of steps and the highest learning rate, the class is told.

    Raises:
        InputError: a learning rate or a weight decay that cannot be, or that is the optimizer's instead of the model's.
    """

    def __init__(
        self,
        learning_rate: float,
        warm_up: float = 0.0,
        weight_decay: float = 0.0,
        optimizer: partial | None = None,
        schedule: partial | None = None,
    ) -> None:
        super().__init__()
        if not learning_rate > 0:
            raise InputError(f"model.learning_rate={learning_rate}: a number above 0 is needed")
        if not weight_decay >= 0:
            raise InputError(f"model.weight_decay={weight_decay}: a number of at least 0 is needed")
        for key, ours in (("lr", "learning_rate"), ("weight_decay", "weight_decay")):
            if optimizer is not None and key in optimizer.keywords:
                raise InputError(
                    f"optimizer.{key}={optimizer.keywords[key]}: give it as model.{ours}, and leave this out"
                )
        self.learning_rate, self.warm_up, self.weight_decay = learning_rate, warm_up, weight_decay
        self.optimizer, self.schedule = optimizer, schedule

    def build_optimizer(self) -> Optimizer:
        """The optimizer of what learns.

        Raises:
            InputError: its class refuses an argument.
        """
        options = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        return _built("optimizer", self.optimizer, self._groups(), **options)

    def configure_optimizers(self) -> tuple[list[Optimizer], list[dict[str, Any]]]:
        """The optimizer of what learns, and what changes its learning rate: stepped with it, until training ends.

        A schedule that waits for a plateau is stepped by `follow` alone: Lightning would step it after the epoch's
        checkpoint is written, and a resumed run would miss that step.

        Raises:
            InputError: a class refuses an argument, or has to know the number of steps where there is no last epoch.
        """
        optimizer = self.build_optimizer()
        takes = signature(self.schedule.func).parameters.keys() - self.schedule.keywords.keys()
        lengths = [name for name in LENGTHS if name in takes]
        steps, rising = self._steps() if lengths or self.warm_up else (0, 0)
        rise = LinearLR(optimizer, start_factor=1 / rising, total_iters=rising) if rising else None
        known = dict.fromkeys(lengths, steps - rising)
        if "max_lr" in takes:
            known["max_lr"] = [group["initial_lr"] if rise else group["lr"] for group in optimizer.param_groups]
        main = _built("schedule", self.schedule, optimizer, **known)
        if not isinstance(main, ReduceLROnPlateau):
            stepped = SequentialLR(optimizer, [rise, main], milestones=[rising]) if rise else main
            return [optimizer], [{"scheduler": stepped, "interval": "step"}]
        rises = [{"scheduler": rise, "interval": "step"}] if rise else []
        return [optimizer], [*rises, {"scheduler": main, "frequency": sys.maxsize, "monitor": "val/loss"}]

    def follow(self, loss: Tensor) -> None:
        """Lower the learning rate where the schedule waits for a plateau of the validation loss, after the warm-up."""
        *rises, main = (config.scheduler for config in self.trainer.lr_scheduler_configs)
        if isinstance(main, ReduceLROnPlateau) and all(rise.last_epoch >= rise.total_iters for rise in rises):
            main.step(loss)

    def _groups(self) -> list[dict[str, Any]]:
        """The parameters that learn, those of one learning rate together."""
        factors = self.backbone.rate_factors() if isinstance(self.backbone, Backbone) else {}
        groups: dict[float, list[nn.Parameter]] = {}
        for parameter in self.parameters():
            if parameter.requires_grad:
                groups.setdefault(factors.get(parameter, 1.0), []).append(parameter)
        return [{"params": group, "lr": factor * self.learning_rate} for factor, group in groups.items()]

    def _steps(self) -> tuple[int, int]:
        """Steps of all epochs, each of which all processes make together, and those of the warm-up."""
        epochs = self.trainer.max_epochs
        if epochs < 0:
            raise InputError(
                f"trainer.max_epochs={epochs}: model.warm_up, and a schedule that ends with training, have to know the "
                "last epoch; give it, or choose schedule=plateau and model.warm_up=0"
            )
        if not 0 <= self.warm_up <= epochs:
            raise InputError(f"model.warm_up={self.warm_up}: epochs are needed, from 0 to trainer.max_epochs={epochs}")
        steps = self.trainer.estimated_stepping_batches
        return steps, round(self.warm_up * steps / epochs)


def _built(group: str, configured: partial, *arguments: Any, **known: Any) -> Any:
    try:
        return configured(*arguments, **known)
    except (IndexError, TypeError, ValueError) as error:
        raise InputError(f"{group}: {configured.func.__name__} refuses what {group}.* says: {error}") from error
