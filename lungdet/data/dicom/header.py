"""What a DICOM file says beside its pixels. pydicom is loaded here, when a first such file is met, and kept silent."""

import logging
import sys
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

from lungdet.errors import InputError, UnreadableImageError

if TYPE_CHECKING:
    from pydicom import Dataset

PREAMBLE, MAGIC = 128, b"DICM"
"""Bytes of anything, and what stands behind them in every DICOM file, whatever it is called."""

OTHER_KINDS = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".csv", ".txt"))
"""Endings of names that promise no DICOM: such files are not opened to see whether they are."""

DIRECTORY = "DICOMDIR"
"""The name of a medium's table of contents, a DICOM file that holds no image."""


def starts_dicom(head: bytes) -> bool:
    """Whether a file that begins with these bytes, at least 132, is DICOM."""
    return head[PREAMBLE : PREAMBLE + len(MAGIC)] == MAGIC


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its first bytes; False where it is not there or called as an image of another kind."""
    if path.suffix.lower() in OTHER_KINDS or path.name.upper() == DIRECTORY:
        return False
    try:
        with path.open("rb") as file:
            return starts_dicom(file.read(PREAMBLE + len(MAGIC)))
    except OSError:
        return False


def header(file: BinaryIO | Path, tags: Iterable[str], pixels: bool = False) -> "Dataset":
    """These tags of a file, of those that it has, and where they are asked for its pixels, not decoded.

    Raises:
        UnreadableImageError: the header cannot be read.
        InputError: pydicom is not installed.
        OSError: the disk failed.
    """
    dicom = library()
    names = [*tags, "PixelData"] if pixels else [*tags]
    try:
        return dicom.dcmread(file, stop_before_pixels=not pixels, specific_tags=names)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # pydicom raises whatever a damaged file leads it to, and may quote a patient's name
        raise UnreadableImageError(f"the DICOM header is damaged ({type(error).__name__})") from None


def tag(name: str) -> str:
    """A tag as messages name it, `(0018,5101) ViewPosition`."""
    number = library().datadict.tag_for_keyword(name)
    return f"({number >> 16:04X},{number & 0xFFFF:04X}) {name}"


def text(dataset: "Dataset", name: str) -> str:
    """A tag's value as one text without spaces around it, empty where it is missing or damaged."""
    try:
        value = dataset.get(name)
    except Exception:  # pydicom raises whatever a damaged value leads it to
        return ""
    return "" if value is None else str(value).strip(" \0")


def first(dataset: "Dataset", name: str) -> float | None:
    """A tag's number, of several the first; None where it is missing.

    Raises:
        UnreadableImageError: it is no number.
    """
    try:
        value = dataset.get(name)
        if value is not None and not isinstance(value, int | float | str):
            value = value[0] if len(value) else None
        return None if value in (None, "") else float(value)
    except Exception:  # pydicom raises whatever a damaged value leads it to
        raise UnreadableImageError(f"{tag(name)} is no number") from None


@cache
def library() -> ModuleType:
    """The package pydicom, quiet.

    Raises:
        InputError: it is not installed.
    """
    hidden = sys.modules.setdefault("gdcm", None)  # not there, for pydicom; `apart` says why
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        advice = "pip install 'lungdet[dicom]'"
        raise InputError(f"there are DICOM files; what reads them is installed by: {advice}") from error
    finally:
        if hidden is None:
            sys.modules.pop("gdcm", None)
    # What it warns of quotes the values of tags: a patient's number and name have no place in a log.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom")
    return pydicom
