"""Commands for people to paste: words quoted for Hydra, and the whole for the shell."""

import re
import shlex
import shutil
import sys
from itertools import pairwise
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

DIRECTORY = "--config-dir"
TRUST = "trust"
"""The key that each command says for itself: no run folder says whom to trust."""


def command(program: str, *words: str) -> str:
    """A command as a shell takes it, which starts the program as the user has started this one, and trusts the same.

    Args:
        program: a script of the checkout, options included: `train.py -m`.
        words: as Hydra is to read them, see `override`.
    """
    script, *options = program.split(" ")
    own = [] if DIRECTORY in words else own_configuration()
    trust = [word for word in sys.argv[1:] if key_of(word) == TRUST]
    trust = [] if TRUST in map(key_of, words) else trust
    return shlex.join([*_started(script, sys.argv[0], sys.orig_argv), *options, *own, *words, *trust])


def own_configuration() -> list[str]:
    """`--config-dir DIR`, where this program was started with it; Hydra looks for choices there, too."""
    joined = f"{DIRECTORY}="
    words = [part for word in sys.argv[1:] for part in (word.split("=", 1) if word.startswith(joined) else [word])]
    folders = [folder for option, folder in pairwise(words) if option in (DIRECTORY, "-cd")]
    return [DIRECTORY, str(Path(folders[0]).absolute())] if folders else []


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


def _started(script: str, own: str, typed: list[str]) -> list[str]:
    """How a script is started where this program was started so: `lungdet train`, or by Python and its path.

    Args:
        script: `train.py`.
        own: the program's own `sys.argv[0]`.
        typed: the command line as it was typed, Python included.
    """
    if own.startswith("lungdet "):
        name = script.removesuffix(".py")
        if typed[1:3] != ["-m", "lungdet"]:
            if shutil.which("lungdet"):
                return ["lungdet", name]
            if typed[1:] and Path(typed[1]).name == "lungdet":
                return [typed[1], name]
        # Nobody has typed what starts the processes that train one run together.
        return [*(typed[:1] or ["python"]), "-m", "lungdet", name]
    path = Path(own)
    if path.name in ("train.py", "evaluate.py") and own in typed[1:]:
        return [typed[0], str(path.with_name(script))]
    return ["python", script]


def _read(word: str) -> object:
    try:
        return OverridesParser.create().parse_override(word).value()
    except HydraException:
        return None
