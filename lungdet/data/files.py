"""The files of a user's folder among which radiographs are looked for."""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from lungdet.errors import DatasetError, first_few
from lungdet.machine.writing import PARTIAL

log = logging.getLogger(__name__)

OVERLAYS = ".overlays"
"""What the folder of a worklist's pictures is called after the worklist."""
_OF_WORKLISTS = re.compile(rf"\.(csv|parquet)({re.escape(OVERLAYS)}|{re.escape(PARTIAL)})$", re.IGNORECASE)


def files_below(folder: Path) -> Iterator[Path]:
    """The files in and below a folder, by path, without hidden ones, the pictures of worklists, and pipes.

    Links to files are followed; links to folders, which may lead back, are not, and a line names them.

    Raises:
        DatasetError: a name that no table can hold.
        OSError: a folder that may not be read.
    """
    for path, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = searched(Path(path), folders)
        if links := [name for name in folders if os.path.islink(os.path.join(path, name))]:
            log.warning("%s: links to folders are not followed, and left out: %s", path, first_few(links, 3))
        for name in sorted(name for name in files if not name.startswith(".")):
            file = Path(path, name)
            if os.path.isfile(file) or file.is_symlink():  # one that leads nowhere is an image that is missing
                _require_text(file)
                yield file


def searched(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of a folder's folders that may hold radiographs, in order.

    A hidden one does not, nor one where a worklist's pictures are or are being drawn; a line names the latter.
    """
    visible = sorted(name for name in names if not name.startswith("."))
    if of_worklists := [*filter(_OF_WORKLISTS.search, visible)]:
        log.info("%s: left out, pictures of worklists: %s", folder, first_few(of_worklists, 3))
    return [name for name in visible if name not in of_worklists]


def _refuse(error: OSError) -> None:
    """What `os.walk` would keep to itself: images would be left out without a word."""
    raise error


def _require_text(file: Path) -> None:
    try:
        str(file).encode()
    except UnicodeEncodeError as error:
        raise DatasetError(f"{os.fsencode(file)!r}: a name that is no text in UTF-8; rename the file") from error
