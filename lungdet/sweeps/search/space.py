"""What a search draws from: Hydra's interval, range or choice, as optuna's distributions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from lungdet.errors import InputError
from lungdet.runs.identity import LOSS_IS_ANOTHER

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def distribution(override: Override) -> "BaseDistribution":
    """What optuna draws from: numbers between two ends, evenly or with `tag(log, ..)`, or one of several values.

    Args:
        override: `key=interval(LOW,HIGH)` (of whole numbers with `int(interval(..))`), `range(..)` or `choice(A,B)`.

    Raises:
        InputError: it is none of these, or holds no value, or losses do not compare across its values.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value, key, text = override.value(), override.get_key_element(), override.get_value_string()
    if not override.is_sweep_override():
        raise InputError(f"sweep.space: {key}={text} is one value; say interval(LOW,HIGH), range(..) or choice(A,B)")
    if key.lstrip("+") in LOSS_IS_ANOTHER:
        raise InputError(
            f"{key}={text}: validation losses do not compare across its values, so a search would find the easiest and "
            f"not the best; give the values with commas to search each apart: {key}=A,B"
        )
    try:
        if override.is_choice_sweep():
            return CategoricalDistribution(list(override.sweep_string_iterator()))
        logarithmic = "log" in value.tags
        if override.is_interval_sweep():
            kind = IntDistribution if isinstance(value.start, int) else FloatDistribution
            return kind(value.start, value.end, log=logarithmic)
        values = list(value.range())
        if not values:
            raise ValueError("the range is empty")
        kind = IntDistribution if isinstance(values[0], int) else FloatDistribution
        return kind(min(values), max(values), step=abs(value.step), log=logarithmic)
    except ValueError as error:
        raise InputError(f"{key}={text}: nothing can be drawn from it ({error})") from None


def require_searchable(space: Mapping[str, Override], config: DictConfig) -> None:
    """Passes only keys that the configuration has, and intervals and ranges only of those that are numbers, or null.

    Raises:
        InputError: another one is to be searched, or what is configured trains nothing.
    """
    if config.get("find") is not None:
        raise InputError("sweep=optuna and find: a search trains, and find trains nothing; leave one of them out")
    for key, override in space.items():
        if key.startswith("+") or "/" in key:  # added, or a group: composing tells
            continue
        text, usual = override.get_value_string(), OmegaConf.select(config, key, default=...)
        if usual is ...:
            raise InputError(f"{key}={text}: the configuration has no such key")
        if not override.is_choice_sweep() and (isinstance(usual, bool) or not isinstance(usual, int | float | None)):
            raise InputError(f"{key}={text}: {key} is no number but {usual}; search it as choice(A,B), in sweep.space")
