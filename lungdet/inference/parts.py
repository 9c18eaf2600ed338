"""Predictions in the making: pieces beside the file that they will be, so that a command that was cut can go on."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pandas as pd

from lungdet.errors import InputError
from lungdet.machine.locking import alone
from lungdet.machine.writing import PARTIAL, make_folder, replacing, write_text


class Parts:
    """A folder that knows what was asked for and holds a file a piece.

    Args:
        folder: which is there.
        request: what decides the predictions, by name; texts and numbers.

    Raises:
        InputError: the folder holds parts of another request.
    """

    def __init__(self, folder: Path, request: dict[str, object]) -> None:
        self.folder = folder
        record = self.folder / "request.json"
        try:
            before = json.loads(record.read_text()) if record.is_file() else request
            differing = [key for key in request if before.get(key) != request[key]]
        except (ValueError, AttributeError) as error:
            raise InputError(
                f"{record} is damaged ({error}); delete its folder, and all images are predicted"
            ) from error
        if differing:
            raise InputError(
                f"{self.folder} holds parts of predictions that were cut, with other {', '.join(differing)}: repeat "
                "that command to finish them, delete the folder, or name another out"
            )
        write_text(record, json.dumps(request, indent=1) + "\n")

    @classmethod
    @contextmanager
    def locked(cls, out: Path, request: dict[str, object]) -> Iterator[Self]:
        """Those of the file `out`, in `<out>.partial`; within the block no other process writes it.

        Raises:
            InputError: one does already; or as above.
        """
        # Beside the folder, which goes before the lock does: in it, who comes in between would lose theirs.
        with alone(out, out.with_name(f".{out.name}.lock")):
            folder = _folder(out)
            make_folder(folder)
            yield cls(folder, request)

    @staticmethod
    def begun(out: Path) -> bool:
        """Whether there are some of the file `out`."""
        return _folder(out).is_dir()

    def finished(self, number: int) -> pd.DataFrame | None:
        """A piece, if it was written."""
        path = self._path(number)
        try:
            return pd.read_parquet(path) if path.is_file() else None
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}); delete it, and its images are predicted again") from error

    def write(self, number: int, piece: pd.DataFrame) -> None:
        """Keep a piece, whole or not at all."""
        with replacing(self._path(number)) as file:
            piece.to_parquet(file)

    def remove(self) -> None:
        """Remove them all."""
        shutil.rmtree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.parquet"


def _folder(out: Path) -> Path:
    return out.with_name(out.name + PARTIAL)


def file_digest(path: Path) -> str:
    """What tells a file's content from others."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
