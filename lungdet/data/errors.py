"""What is wrong with a dataset's files, said so that the reader can put it right."""

from collections.abc import Iterable
from pathlib import Path

from lungdet.errors import InputError


class DatasetError(InputError):
    """A dataset's folder or table that can't be read; the message names file, column and value, and what to do."""


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


def some(names: Iterable[object], limit: int = 5) -> str:
    """The first few names of a list, for a message that already says how many there are."""
    names = [str(name) for name in names]
    return ", ".join(names[:limit]) + (", .." if len(names) > limit else "")
