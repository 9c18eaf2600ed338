"""The one kind of error that is the user's to mend, everywhere in the project."""

import errno
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

log = logging.getLogger(__name__)

_REFUSALS = {
    errno.EACCES: "give yourself the right to it, or name another place",
    errno.EPERM: "give yourself the right to it, or name another place",
    errno.EROFS: "name a place that can be written",
    errno.ENOSPC: "make room, or name another place",
    errno.EDQUOT: "make room, or name another place",
    errno.EEXIST: "a file is where a folder is to be: name another place",
    errno.ENOTDIR: "a file is where a folder is to be: name another place",
    errno.EISDIR: "a folder is where a file is to be: move it away, or name another place",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.ELOOP: "a link is where none is followed: delete it, or name another place",
}
"""What the machine refuses to anybody's program, and what its user can do about it."""
_ADDRESS = re.compile(r"(?=\b([a-z][a-z0-9+.-]*://[^\s\[\]{}]*))", re.IGNORECASE)
"""Where one begins, so that each of a list is one, too."""
_PLACES = {
    "tracking_uri": "MLflow reads MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment",
    "WANDB_BASE_URL": "wandb login keeps the key, or WANDB_API_KEY in the environment",
}
"""Where a password belongs, by the last part of an address's key."""


class InputError(ValueError):
    """Something given to the program cannot be used; the message alone says what, where and what to do about it.

    The commands print such a message without a traceback. Each room has its own kind: `DatasetError`, `SplitError`,
    `RunError` ..
    """


class DatasetError(InputError):
    """A dataset's folder or table that can't be read; the message names file, column and value, and what to do."""


class UnreadableImageError(ValueError):
    """A file that gives no usable radiograph; the message is the reason, without the file's name."""


class RunError(InputError):
    """A run folder that is not there, or lacks what is asked of it; the message says what to do."""


@contextmanager
def plain_errors(alone: bool = True) -> Iterator[None]:
    """End the program with the message of an error that is the user's to mend, or after Ctrl-C, without a traceback.

    That is an `InputError` that the block raises, a command line that Hydra refuses, or a file that cannot be written.
    The program's name opens the message.

    Args:
        alone: False in one of several jobs: its message is logged and goes on as an `InputError`, so that the others
            run.
    """
    program = Path(sys.argv[0]).name
    try:
        yield
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        raise SystemExit(130) from None  # as shells have it
    except Exception as error:
        message = mistake(error)
        if message is None:
            raise
        if alone:
            raise SystemExit(f"{program}: {message}") from None
        log.error("%s", message)
        raise InputError(message) from error  # by itself: what a launcher sends home has lost its cause


def require_whole(key: str, value: object, least: int) -> None:
    """Raise unless the value of a key is a whole number from `least` to 2^32 - 1.

    Raises:
        InputError: it is not; the message names the key.
    """
    if type(value) is not int or not least <= value < 1 << 32:
        raise InputError(f"{key}={value}: a whole number, at least {least}, is needed")


def require_no_secret(key: str, value: object) -> None:
    """Raise where an address tells a password: configurations, logs and reports keep what a command said.

    Args:
        key: of the value.
        value: a text, or a mapping or list with texts at any depth; others tell nothing.

    Raises:
        InputError: it does; the message names the key, and not the value.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            require_no_secret(f"{key}.{name}", inner)
    elif isinstance(value, list):
        for inner in value:
            require_no_secret(key, inner)
    elif isinstance(value, str) and _tells_secret(value):
        advice = _PLACES.get(key.rpartition(".")[2])
        raise InputError(
            f"{key}: a user or password stands in the address, and would stand in run folders and logs: name the "
            f"server alone{'. ' + advice if advice else ''}"
        )


def check_folder(root: Path, name: str, layout: str) -> None:
    """Raise unless `root` is a folder with something in it.

    Args:
        root: where the dataset should be.
        name: the dataset's name, which opens the message.
        layout: what is expected in the folder, for the message.

    Raises:
        DatasetError: there is no such folder, or it is empty.
    """
    if not root.is_dir():
        raise DatasetError(f"{name}: there is no folder {root.absolute()}. data.root must name a folder with {layout}")
    if not any(root.iterdir()):
        raise DatasetError(f"{name}: the folder {root.absolute()} is empty. It should hold {layout}")


def first_few(names: Iterable[object], limit: int = 5) -> str:
    """The first few names of a list, for a message that already says how many there are."""
    names = [str(name) for name in names]
    return ", ".join(names[:limit]) + (", .." if len(names) > limit else "")


def _tells_secret(text: str) -> bool:
    """Whether a user or token stands in the address of a web server, or a password in any."""
    for match in _ADDRESS.finditer(text):
        try:
            address = urlsplit(match[1])
            user, password, _ = address.username, address.password, address.port
        except ValueError:  # the port is no number: http://user:with/slash@server
            if "@" in text[match.start() :]:
                return True
            continue
        of_web = address.scheme in ("http", "https")
        if password or (of_web and user and "," not in user):  # a comma parts a list on a command line
            return True
    return False


def mistake(error: BaseException | None) -> str | None:
    """What to say of an error that is the user's to mend; None of any other. Hydra wraps what a construction raises."""
    while error is not None:
        if isinstance(error, InputError):
            return str(error)
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            return f"{error.filename or 'a file'}: {error.strerror}; {_REFUSALS[error.errno]}"
        if isinstance(error, InterpolationKeyError):
            return f"{error.full_key or 'a value'}: {str(error).splitlines()[0]}"
        if isinstance(error, HydraException) and not isinstance(error, InstantiationException):
            detail = f"\n{error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
            return f"{error}{detail}"
        error = error.__cause__
    return None
