"""The jobs of a multirun: what each of them says on its command line."""

from collections.abc import Sequence
from itertools import product

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig


def jobs(overrides: Sequence[Override]) -> list[list[str]]:
    """The overrides of each job of a multirun, the last key's values varying fastest, as Hydra's sweeper has it."""
    return _product({override.get_key_element(): _values(override) for override in overrides})


def examples(config: DictConfig) -> list[list[str]]:
    """Overrides to check a multirun by: of each job, but for ranges their first value, and no key that a search draws.

    Args:
        config: the multirun's own, with Hydra's part.
    """
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    return _product(
        {
            override.get_key_element(): _values(override)[: 1 if override.is_range_sweep() else None]
            for override in parser.parse_overrides([*params, *config.hydra.overrides.task])
            if not override.is_interval_sweep()
        }
    )


def _values(override: Override) -> list[str]:
    if override.is_sweep_override():
        return [*override.sweep_string_iterator()]
    return [override.get_value_element_as_str()]


def _product(choices: dict[str, list[str]]) -> list[list[str]]:
    words = [[f"{key}={value}" for value in values] for key, values in choices.items()]
    return [[*job] for job in product(*words)]
