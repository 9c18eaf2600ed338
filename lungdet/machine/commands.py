"""Commands for people to paste: words quoted for Hydra, and the whole for the shell."""

import re
import shlex
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException


def command(program: str, *words: str) -> str:
    """A command as a shell takes it.

    Args:
        program: what stands after `python`, options included: `train.py -m`.
        words: as Hydra is to read them, see `override`.
    """
    return f"python {program} {shlex.join(words)}"


def override(key: str, value: str | Path | float | bool | list[str]) -> str:
    """`key=value` that Hydra reads as this very value: a text in quotes where it would be taken for something else.

    It goes to a process as it is; to a shell it needs quotes of its own (`shlex.quote`, `command`).
    """
    if not isinstance(value, str | Path):
        return f"{key}={value}"
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", str(value))  # no interpolation
    if _read(f"{key}={text}") != text:
        text = QuotedString(text, Quote.double).with_quotes()
    return f"{key}={text}"


def key_of(word: str) -> str:
    """The key that a word of the command line sets, adds or deletes: `++a.b=c` -> `a.b`."""
    return re.split("[=@]", word.lstrip("+~"))[0]


def _read(word: str) -> object:
    try:
        return OverridesParser.create().parse_override(word).value()
    except HydraException:
        return None
