"""The files of a user's folder among which radiographs are looked for."""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from lungdet.errors import first_few
from lungdet.machine.writing import PARTIAL

log = logging.getLogger(__name__)

OVERLAYS = ".overlays"
"""What the folder of a worklist's pictures is called after the worklist."""
_OF_WORKLISTS = re.compile(rf"\.(csv|parquet)({re.escape(OVERLAYS)}|{re.escape(PARTIAL)})$", re.IGNORECASE)


def files_below(folder: Path) -> Iterator[Path]:
    """The files in and below a folder, by path, without hidden ones and the pictures of worklists."""
    for path, folders, files in os.walk(folder):
        folders[:] = searched(Path(path), folders)
        yield from (Path(path) / name for name in sorted(files) if not name.startswith("."))


def searched(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of a folder's folders that may hold radiographs, in order.

    A hidden one does not, nor one where a worklist's pictures are or are being drawn; a line names the latter.
    """
    visible = sorted(name for name in names if not name.startswith("."))
    if of_worklists := [*filter(_OF_WORKLISTS.search, visible)]:
        log.info("%s: left out, pictures of worklists: %s", folder, first_few(of_worklists, 3))
    return [name for name in visible if name not in of_worklists]
