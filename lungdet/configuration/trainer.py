"""Values of `trainer.*`, and the seed, that a run can be trained with."""

import math
import re
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lungdet.errors import InputError
from lungdet.kinds import written


def require_trainable(config: DictConfig) -> None:
    """Pass only a seed that can be drawn from, and values of `trainer.*` that a trainer can compute with.

    Raises:
        InputError: one is not so; the message names its key.
    """
    seed, trainer = config.seed, {"max_epochs": None} | OmegaConf.to_container(config.trainer, resolve=True)
    if not (type(seed) is int and 0 <= seed < 2**32):
        raise InputError(f"seed={written(seed)}: a whole number from 0 to {2**32 - 1} is needed")
    for key, (fits, needed) in _RULES.items():
        if key in trainer and not fits(trainer[key]):
            raise InputError(f"trainer.{key}={written(trainer[key])}: {needed} is needed")


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 1


def _devices(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"auto|-1|[1-9]\d*|\d+(,\d+)+", value) is not None
    numbers = isinstance(value, list) and value and all(type(number) is int and number >= 0 for number in value)
    return bool(numbers) or value == -1 or _whole(value)


def _between(value: Any, high: float) -> bool:
    return value is None or (type(value) in (int, float) and 0 < value < high)


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_epochs": (lambda value: _whole(value) or value == -1, "at least one epoch (-1: no end)"),
    "early_stopping": (lambda value: value is None or _whole(value), "at least one epoch (null: never)"),
    "accelerator": (lambda value: isinstance(value, str), "a name, such as auto, cpu or gpu,"),
    "devices": (_devices, "at least one: how many, which ([0,2]), or auto for all,"),
    "num_nodes": (_whole, "at least one machine"),
    "accumulate_grad_batches": (_whole, "at least one batch"),
    "gradient_clip_val": (lambda value: _between(value, math.inf), "a norm above 0 (null: none is clipped)"),
    "averaging": (lambda value: _between(value, 1), "a number between 0 and 1, .9 say (null: none)"),
    "sync_batchnorm": (lambda value: value == "auto" or isinstance(value, bool), "true, false or auto"),
}  # fmt: skip
"""Whether a value fits, and what is needed. Others are told by whoever reads them, `hardware` or Lightning."""
