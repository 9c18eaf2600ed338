"""From a configuration to objects, through the one gate: lungdet's own classes, and those of packages that are trusted.

A run folder may be anybody's, and its config.yaml names what is to be called. So each `_target_`, however deep, is a
class that lungdet offers (a model, a backbone, a dataset, an augmentation), torch (an optimizer, a schedule) or
Lightning (a logger), or is defined in a package that the command itself trusts: `trust=[mypackage]`, which is never
taken from a run folder.
"""

import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lungdet.errors import InputError
from lungdet.kinds import require_fitting

LOGGERS = ("lightning.pytorch.loggers.mlflow", "lightning.pytorch.loggers.tensorboard")
KNOWN = ("lungdet", "torch.optim", *LOGGERS)
OFFERED = ("lungdet.models", "lungdet.data.sources", "lungdet.data.augment", "torch.optim", *LOGGERS)
"""Where the classes are that a configuration may name: of models, data, augmentation, optimization, loggers."""


def instantiate(name: str, config: DictConfig, trust: Sequence[str] = (), **arguments: Any) -> Any:
    """The object that a configuration describes, with all those within it.

    Args:
        name: what the configuration is called in messages, such as `model`.
        config: with a `_target_`; what it refers to is resolved first.
        trust: packages, or modules of theirs, whose classes and functions may be named too.
        arguments: further arguments of the object's, configurations among them.

    Raises:
        InputError: a `_target_` is neither lungdet's nor of a trusted package, or is not there; `trust` is no list; a
            value is of another kind than its class takes, or torch refuses it.
    """
    from hydra import utils
    from hydra.errors import InstantiationException

    values = OmegaConf.to_container(config, resolve=True) | arguments
    admitted = _admitted(values, name, packages(trust))
    try:
        return utils.instantiate(admitted)
    except InstantiationException as error:
        cause = error.__cause__  # torch's layers refuse a number, or a base is not given what it needs
        if type(cause) in (ValueError, RuntimeError) or (type(cause) is TypeError and " required " in str(cause)):
            raise InputError(f"{name} cannot be made of these values: {cause}") from error
        raise


def require_trusted(config: DictConfig, trust: Sequence[str] = ()) -> None:
    """Passes a whole configuration whose every `_target_` is in lungdet or a trusted package, as far as names tell.

    Nothing is imported, so that it can be asked before anything else is done.

    Raises:
        InputError: as `instantiate`.
    """
    trusted = packages(trust)
    for key, node in OmegaConf.to_container(config, resolve=True).items():
        _admitted(node, key, trusted, importing=False)


def require_kinds(config: DictConfig, trust: Sequence[str] = ()) -> None:
    """Passes a configuration whose values are what the classes of its groups take; these are imported for it.

    Raises:
        InputError: as `instantiate`, before anything is made.
    """
    trusted = packages(trust)
    for key in config:
        if OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key):
            continue
        if OmegaConf.is_dict(config[key]) and "_target_" in config[key]:
            _admitted(config[key], key, trusted)


def packages(trust: Sequence[str]) -> list[str]:
    """What `trust=[mypackage]` names.

    Raises:
        InputError: it is no list of names.
    """
    names = trust or ()
    listed = isinstance(names, Sequence) and not isinstance(names, str)
    if not listed or not all(re.fullmatch(r"\w+(\.\w+)*", str(package)) for package in names):
        raise InputError(f"trust={trust}: a list of packages is needed, trust=[mypackage]")
    return [*names]


def _admitted(node: Any, key: str, trust: Sequence[str], importing: bool = True) -> Any:
    """The node as plain values, each `_target_` replaced by what it names, so that this and no other is called."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True)
    if isinstance(node, dict):
        values = {word: _admitted(value, f"{key}.{word}", trust, importing) for word, value in node.items()}
        if "_target_" in node:
            _require_named(node["_target_"], f"{key}._target_", trust)
            if importing:
                values["_target_"] = located(node["_target_"], f"{key}._target_", trust)
                require_fitting(values["_target_"], values, key)
        return values
    if isinstance(node, list):
        return [_admitted(value, f"{key}[{i}]", trust, importing) for i, value in enumerate(node)]
    if isinstance(node, str) and "${" in node:
        raise InputError(f"{key}={node}: no value may hold ${{ once all are filled in")
    return node


def _require_named(target: Any, key: str, trust: Sequence[str]) -> None:
    if not isinstance(target, str) or not re.fullmatch(r"\w+(\.\w+)+", target):
        raise InputError(f"{key}={target}: the name of a class is needed, package.module.Class")
    if not _within(target, [*KNOWN, *trust]):
        package = target.partition(".")[0]
        raise InputError(
            f"{key}={target} is no class of lungdet's and would run code of the package {package}. If you trust that "
            f"and whoever wrote this configuration, add 'trust=[{','.join([*trust, package])}]' to the command"
        )


def located(target: str, key: str, trust: Sequence[str]) -> Any:
    """The class or function of this name, of a room that offers its own or of a trusted package.

    Raises:
        InputError: it is neither, or is not there; the message names the key.
    """
    module, _, name = target.rpartition(".")
    try:
        named = getattr(import_module(module), name, None)
    except ImportError as error:
        raise InputError(f"{key}={target}: {error}") from error
    if named is None:
        raise InputError(f"{key}={target}: there is no {name} in {module}")
    home = getattr(named, "__module__", "")  # what a module has merely imported is not its own
    if (isinstance(named, type) and _within(home, OFFERED)) or (callable(named) and _within(home, trust)):
        return named
    raise InputError(
        f"{key}={target} is no model, backbone, dataset or augmentation of lungdet's, no optimizer or schedule of "
        "torch's and no logger of Lightning's" + (f", nor defined in {' or '.join(trust)}" if trust else "")
    )


def _within(name: str, modules: Sequence[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)
