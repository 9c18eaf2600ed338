"""Words of a command line that Hydra cannot read, told in one line with what was probably meant."""

from collections.abc import Sequence
from pathlib import Path

from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser  # Hydra's own options have no public list
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from lungdet.configuration.keys import BRINGS_NONE, composed, keys, plain
from lungdet.configuration.nearest import hint
from lungdet.errors import InputError

EXTRAS = {"submitit_slurm": "slurm", "submitit_local": "slurm", "ray": "ray"}
"""Launchers of Hydra's plugins, and what of ours installs them."""
QUOTES = "a value with a space, a comma, = or brackets needs double quotes within single ones: 'KEY=\"VALUE\"'"


def require_readable(words: Sequence[str], conf: Path, name: str) -> None:
    """Pass only options that Hydra has, and one choice of a group.

    Args:
        words: of the command line.
        conf: the folder of the configuration.
        name: the configuration's.

    Raises:
        InputError: Hydra would end with its usage or a traceback.
    """
    given, unknown = get_args_parser().parse_known_args([*words])
    if unknown and not unknown[0].startswith("-"):
        raise InputError(f"{unknown[0]}: options such as -m stand before all values")
    if unknown:
        option = unknown[0].lstrip("-").replace("-", "_").partition("=")[0]
        suggestion = hint(option, _keys(conf, name))
        raise InputError(f"{unknown[0]}: no such option; a value is given as key=value{suggestion}")
    for override in _parsed(given.overrides):
        group, choice = override.key_or_group, override.value()
        a_group = (conf / group).is_dir() or group.startswith("hydra/")
        if group == BRINGS_NONE or override.is_delete() or not a_group:
            continue
        if choice is None or (override.is_choice_sweep() and None in override.sweep_iterator()):
            raise InputError(f"{group}=null: a choice is needed, of {_choices(conf, group)}; or leave {group} out")
        if isinstance(choice, list):
            listed = ",".join(str(name) for name in choice)
            raise InputError(f"{group}=[{listed}]: one choice is needed; a run of each is -m {group}={listed}")


def reason(error: HydraException, words: Sequence[str], conf: Path, name: str) -> str:
    """What is wrong with words that Hydra refuses, in one line."""
    cause, overrides = error.__cause__, _parsed(get_args_parser().parse_known_args([*words])[0].overrides)
    if isinstance(error, OverrideParseException):
        word = error.override
        groups = [group for group in _groups(conf) if (conf / group / f"{word}.yaml").is_file()]
        suggestion = f"; did you mean {' or '.join(f'{group}={word}' for group in groups)}?" if groups else ""
        return f"{word}: not to be read as key=value{suggestion or f'; {QUOTES}'}"
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        group, _, choice = error.missing_cfg_file.rpartition("/")
        suggestion = hint(choice, _names(conf, group)) or f"; there are {_choices(conf, group)}"
        if group == "hydra/launcher" and choice in EXTRAS:
            suggestion = f"; it comes with pip install 'lungdet[{EXTRAS[choice]}]'"
        return f"{group}={choice}: there is no such choice{suggestion}"
    strange = getattr(cause, "full_key", None)
    known = _keys(conf, name, *(word.input_line for word in overrides if (conf / word.key_or_group).is_dir()))
    for override in overrides:
        key = override.key_or_group
        if strange is not None and f"{key}.".startswith(f"{strange}.") and not (conf / key).is_dir():
            return f"{key}: there is no such key{hint(key, known)}"
        if strange is None and override.is_add() and key in known:
            return f"{override.input_line}: the key is there already; leave the + out"
        if strange is None and override.is_delete() and key not in known:
            return f"{override.input_line}: there is no such key{hint(key, known)}"
        if strange is None and override.is_sweep_override() and not {"-m", "--multirun"} & {*words}:
            return f"{override.input_line}: several values make several runs; add -m"
    return " ".join(f"{error} {cause or ''}".split())


def _parsed(words: Sequence[str]) -> list[Override]:
    parser, overrides = OverridesParser.create(), []
    for word in words:
        try:
            overrides.append(parser.parse_override(word))
        except HydraException:  # told by whoever composes them
            continue
    return overrides


def _keys(conf: Path, name: str, *choices: str) -> list[str]:
    """The keys of a configuration with these choices; of its own ones, where one of these is not there."""
    for words in (choices, ()):
        try:
            with initialize_config_dir(str(conf), version_base="1.3"):
                return [*keys(plain(composed(GlobalHydra.instance().config_loader(), name, *words)))]
        except HydraException:
            continue
    return []


def _groups(conf: Path) -> list[str]:
    return sorted(str(path.relative_to(conf)) for path in conf.rglob("*") if path.is_dir())


def _names(conf: Path, group: str) -> list[str]:
    """What can be chosen, of ours and of what Hydra and its plugins bring."""
    with initialize_config_dir(str(conf), version_base="1.3"):
        return sorted(GlobalHydra.instance().config_loader().get_group_options(group))


def _choices(conf: Path, group: str) -> str:
    return ", ".join(_names(conf, group)) or "nothing"
