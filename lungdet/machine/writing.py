"""Files are written aside and renamed when whole, and never through a link that somebody laid in their place."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lungdet.errors import InputError

PARTIAL = ".partial"
"""How the name of a file ends that is not whole yet; a process that was killed leaves it behind."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file in the folder of `path`, which takes its place on disk when the block ends well, and else goes.

    Until then a file that stands at `path` stays as it is, also where the program is killed or the disk is full. A link
    at `path` is replaced, not followed. The new file's name cannot be foreseen: no link lies there either.
    """
    aside = path.with_name(f".{secrets.token_hex(8)}{PARTIAL}")
    try:
        with open(aside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else the name may be on disk before the bytes are
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def link(file: Path, path: Path) -> bool:
    """Have `path`, on the same disk, be the file, too, which nobody changes; what stands there goes as by `replacing`.

    Returns:
        Whether it is; some disks let a file have no second name.
    """
    aside = path.with_name(f".{secrets.token_hex(8)}{PARTIAL}")
    try:
        os.link(file, aside)
    except OSError:
        return False
    os.replace(aside, path)
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, see `replacing`."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def make_folder(folder: Path) -> None:
    """Make a folder for our files, unless it is there.

    Raises:
        InputError: it is a link, and what is written there would land, and replace files, somewhere else.
    """
    if folder.is_symlink():
        raise InputError(f"{folder} is a link to {os.readlink(folder)}, where files would be replaced; delete the link")
    folder.mkdir(parents=True, exist_ok=True)


def require_writable(key: str, path: Path) -> None:
    """Pass only where a file or folder can be made or replaced, before hours are spent; nothing is left.

    Args:
        key: what names it in a configuration.
        path: need not be there, nor the folders that it is in.

    Raises:
        InputError: it cannot.
    """
    try:
        place = path.absolute() if path.is_dir() else path.absolute().parent
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryDirectory(dir=place):
            pass
    except OSError as error:
        reason = f"nothing can be written in {place} ({error.strerror})"
        raise InputError(f"{key}={path}: {reason}; name another place") from error
