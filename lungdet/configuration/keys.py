"""The keys that a configuration has: what a command, or a file, adds to them or takes from them is refused by name.

Hydra alone accepts any key that is given with a `+`. Nothing would heed it, and the run would count as another one.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lungdet.configuration.nearest import hint
from lungdet.errors import InputError
from lungdet.instantiation import located, packages
from lungdet.kinds import Signature, fits, signature, wording, written

BRINGS_NONE = "experiment"
"""The group whose files set keys of the others, and bring none of their own."""
CHECKED_WHERE_USED = (("sweep", "space"), ("degrade",))
"""Groups of any keys, which whoever reads them checks."""


def require_known(config: DictConfig, loader: ConfigLoader) -> None:
    """Pass only a configuration that has the keys of its choices, no fewer and no more.

    More may be there where the class behind a group takes it: of `trainer` Lightning's trainer, of others what
    `_target_` names.

    Args:
        config: as Hydra composed it, its own part included.
        loader: which did.

    Raises:
        InputError: a key that is not known, with the nearest that is; one that was taken away; no choice where one is
            needed.
    """
    name = config.hydra.job.config_name
    usual, choices = _choices(composed(loader, name)), _choices(config)
    for group, choice in usual.items():
        if choice is not None and choices.get(group) is None:
            raise InputError(f"{group}=null: a choice is needed, of {', '.join(loader.get_group_options(group))}")
    words = [f"{group}={choice}" for group, choice in choices.items() if choice is not None and choices != usual]
    given, known = plain(config), plain(composed(loader, name, *words))
    _require_alike(given, known)
    for path, state in _differing(given, known):
        key = ".".join(path)
        if state == "missing":
            raise InputError(f"~{key}: the key is needed; give it a value, {key}=VALUE")
        if state == "replaced":
            choice = ", ".join(loader.get_group_options("/".join(path)))
            advice = f"choose {'/'.join(path)}=NAME, of {choice}" if choice else f"give {key}.KEY=VALUE"
            raise InputError(f"{key} is a group of keys; {advice}")
        takers, last = _takers(config, given, path[:-1]), path[-1]
        if not any(last in taker.kinds or not taker.whole for taker in takers):
            further = [".".join((*path[:-1], name)) for taker in takers for name in taker.kinds]
            raise InputError(f"{key}: there is no such key{hint(key, [*keys(known), *further])}")


def _require_alike(given: Mapping[str, Any], known: Mapping[str, Any], prefix: str = "") -> None:
    """Pass only values of their defaults' kinds: numbers, texts, true or false. What is in groups others check."""
    for key, default in known.items():
        value = given.get(key, default)
        if key in ("threshold", "sweep") and isinstance(value, Mapping) and isinstance(default, Mapping):
            _require_alike(value, default, f"{key}.")
        kind = type(default)
        if kind is str and value is None:
            raise InputError(f"{prefix}{key}=null: a value is needed")
        if kind in (bool, int, float) and not fits(value, kind) and "${" not in str(value):
            raise InputError(f"{prefix}{key}={written(value)}: {wording(kind)} is needed")


@cache
def composed(loader: ConfigLoader, name: str, *words: str) -> DictConfig:
    """What the configuration of this name is with these choices; one that a user has to make may be missing.

    Composed once for all jobs of a multirun that choose alike; not to be changed.
    """
    return loader.load_configuration(name, [*words], RunMode.MULTIRUN, validate_sweep_overrides=False)


def keys(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every key of plain values, those of groups with dots, groups themselves included."""
    for key, value in node.items():
        if not key.startswith("_"):
            yield f"{prefix}{key}"
            if isinstance(value, Mapping):
                yield from keys(value, f"{prefix}{key}.")


def plain(config: DictConfig) -> dict[str, Any]:
    """A configuration without Hydra's own part, nothing in it filled in."""
    values = OmegaConf.to_container(config, resolve=False)
    return {key: value for key, value in values.items() if key != "hydra"}


def _choices(config: DictConfig) -> dict[str, Any]:
    choices = OmegaConf.to_container(config.hydra.runtime.choices)
    return {
        group: choice for group, choice in choices.items() if group != BRINGS_NONE and not group.startswith("hydra/")
    }


def _differing(
    given: Mapping[str, Any], known: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Where a configuration has other keys than its choices bring: `added`, `missing`, or a group `replaced`.

    A mapping that stands for one value, as `data.patients` does, is left to the class that takes it.
    """
    if path in CHECKED_WHERE_USED:
        return
    for key, value in given.items():
        here = (*path, key)
        if key not in known:
            if here not in CHECKED_WHERE_USED:
                yield here, "added"
        elif isinstance(known[key], Mapping) and ("_target_" in known[key] or "_target_" not in known):
            if isinstance(value, Mapping):
                yield from _differing(value, known[key], here)
            else:
                yield here, "replaced"
    yield from (((*path, key), "missing") for key in known if key not in given)


def _takers(config: DictConfig, given: Mapping[str, Any], groups: Sequence[str]) -> list[Signature]:
    """What the classes behind a group take."""
    group = given
    for name in groups:
        group = group[name]
    if "_target_" in group:
        return [signature(located(group["_target_"], ".".join(groups), packages(config.get("trust") or ())))]
    if [*groups] == ["trainer"]:
        from lightning import Trainer

        return [signature(Trainer)]
    return []
