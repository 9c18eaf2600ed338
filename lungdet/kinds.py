"""Values of the kind that a signature asks for: a word in the place of a number is refused by its key."""

import inspect
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union

from lungdet.errors import InputError

MISSING = "???"
"""What a configuration holds in the place of a value that each user has to give."""

_NAMES = {int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}


class Signature(NamedTuple):
    """What a class or function takes by name.

    Attributes:
        kinds: each argument's annotation; `Any` where it has none.
        needed: those without a default. Of a class's own: what its bases need it may give them itself.
        whole: False where it takes others, too, and does not say which.
    """

    kinds: dict[str, Any]
    needed: tuple[str, ...]
    whole: bool


def signature(named: Callable[..., Any]) -> Signature:
    """The arguments of a function or a class, with those that it hands on as `**keys`.

    These are its bases', and those of the functions and dataclasses that its attribute `KEYS` lists.
    """
    kinds: dict[str, Any] = {}
    needed: list[str] = []
    bases = named.__mro__ if isinstance(named, type) else (named,)
    for base in bases:
        function = vars(base).get("__init__") if isinstance(named, type) else base
        for taker in vars(base).get("KEYS", ()):
            kinds = _annotations(taker.__init__ if isinstance(taker, type) else taker) | kinds
        if function is None:
            continue
        annotations, parameters = _annotations(function), inspect.signature(function).parameters.values()
        for parameter in parameters:
            by_name = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            if by_name and parameter.name not in ("self", *kinds):
                kinds[parameter.name] = annotations.get(parameter.name, Any)
                needed += [parameter.name] * (parameter.default is parameter.empty and base is named)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return Signature(kinds, tuple(needed), whole=True)
    return Signature(kinds, tuple(needed), whole=False)


def require_fitting(named: Callable[..., Any], values: Mapping[str, Any], key: str) -> None:
    """Pass only arguments that a class or function takes, each of the kind that it asks for, and all that it needs.

    Args:
        named: what is to be called.
        values: by name; of Hydra's own, such as `_target_`, nothing is asked.
        key: what the group of these values is called in messages, such as `model.backbone`.

    Raises:
        InputError: one does not fit; the message names its key.
    """
    parameters = signature(named)
    for name, value in values.items():
        if name.startswith("_"):
            continue
        if name not in parameters.kinds and parameters.whole:
            raise InputError(f"{key}.{name}={value}: {named.__name__} takes no such key")
        kind = parameters.kinds.get(name, Any)
        if value == MISSING:
            raise InputError(f"{key}.{name} has no value yet; give {key}.{name}=VALUE")
        if not fits(value, kind):
            raise InputError(f"{key}.{name}={written(value)}: {wording(kind)} is needed")
    for name in parameters.needed:
        if name not in values and not values.get("_partial_"):
            raise InputError(f"{key}.{name} is missing; give +{key}.{name}=VALUE")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value of a configuration is of a kind; of one that is not known here every value is."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, UnionType):
        return any(fits(value, choice) for choice in inner)
    if origin is Literal:
        return value in inner
    if kind is Any or kind is NoneType:
        return kind is Any or value is None
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind in (int, bool):
        return type(value) is kind
    if kind in (str, Path):
        return isinstance(value, str | Path)
    of = origin or kind
    if of is dict or of is Mapping:
        return isinstance(value, dict) and all(fits(element, inner[-1] if inner else Any) for element in value.values())
    if of in (list, Sequence):
        return isinstance(value, list) and all(fits(element, inner[0] if inner else Any) for element in value)
    return not isinstance(kind, type) or kind is object or isinstance(value, dict | kind)


def wording(kind: Any) -> str:
    """How a kind is called: `a number or null`."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, UnionType):
        names = dict.fromkeys(wording(choice) for choice in inner)
        return " or ".join(names)
    if origin is Literal:
        return " or ".join(str(value) for value in inner)
    if kind in (str, Path):
        return "a text (a number in quotes: '\"1\"')"
    of = origin or kind
    if of is dict or of is Mapping:
        return "a group of values, {KEY: VALUE},"
    if of in (list, Sequence):
        return "a list of values, [A,B],"
    return _NAMES.get(kind, f"a group that describes a {getattr(kind, '__name__', kind)}")


def written(value: Any) -> Any:
    """A value as it is typed."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else value


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return {name: kind for name, kind in typing.get_type_hints(function).items() if name != "return"}
    except (NameError, TypeError):  # imported for types alone
        return {}
