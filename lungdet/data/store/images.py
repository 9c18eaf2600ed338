"""One radiograph file becomes one grey array, and that array the square that networks read."""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Self

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lungdet.data.dicom import pixels as dicom
from lungdet.data.dicom.header import is_dicom, starts_dicom
from lungdet.errors import InputError, UnreadableImageError

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
"""What is read beside DICOM, told by a file's content, not by its name. No format that starts another program (EPS),
and none that Pillow would cut to 8 bits without a word (PPM, JPEG 2000)."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom")
"""Endings of names that are taken for images'; DICOM files often have none (`is_image`)."""

RESIZES = ("squash", "pad", "crop")

LARGEST = 1 << 26
"""Pixels of the largest image that is unpacked, 8192 x 8192: a whole film scanned at 50 µm has 60 million. A small file
may claim any number of them, and each takes up to 8 bytes."""


@dataclass(frozen=True)
class Settings:
    """What turns a file into a prepared image.

    Args:
        size: side of the square, pixels.
        resize: `squash` (both axes scaled to `size`, as the study did), `pad` (aspect kept, 0 around it) or `crop`
            (aspect kept, the central square).
        bits: depth of 16-bit files, 1 to 16, for all datasets or by dataset; None, or a dataset that is not named, is
            decided from all 16-bit files of the dataset. 8-bit files are 8 bits deep whatever this says.

    Raises:
        InputError: a value outside of these.
    """

    size: int = 224
    resize: str = "squash"
    bits: int | Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if type(self.size) is not int or self.size < 1:
            raise InputError(f"data.image_size={self.size}: a whole number of pixels, at least 1, is needed")
        if self.resize not in RESIZES:
            raise InputError(f"data.resize={self.resize}: {', '.join(RESIZES)} can be chosen")
        if isinstance(self.bits, Mapping):
            object.__setattr__(self, "bits", dict(self.bits))
        for bits in self.bits.values() if isinstance(self.bits, dict) else [self.bits]:
            if bits is not None and (type(bits) is not int or not 1 <= bits <= 16):
                raise InputError(
                    f"data.bits={self.bits}: 1 to 16, such numbers by dataset, or null to decide it for each dataset, "
                    "is needed"
                )

    def of(self, dataset: str) -> Self:
        """The same for a single dataset: `bits` is its own depth, None where that is to be decided."""
        return replace(self, bits=self.bits.get(dataset)) if isinstance(self.bits, dict) else self


def read_square(path: Path, settings: Settings) -> tuple[np.ndarray, int]:
    """A radiograph as a square, still in its file's depth, and the largest value that the file holds.

    Args:
        path: the file.
        settings: of the file's dataset (`Settings.of`).

    Returns:
        (size, size) uint8, or uint16 for a 16-bit file; the maximum is the whole file's, taken before resizing.

    Raises:
        UnreadableImageError: as `read_grey` and `square`.
    """
    return square(read_grey(path), settings)


def square(grey: np.ndarray, settings: Settings) -> tuple[np.ndarray, int]:
    """As `read_square`, of an image (h, w) uint8 or uint16 that is at hand.

    Raises:
        UnreadableImageError: every pixel has the same value; a value of a 16-bit image needs more than `settings.bits`.
    """
    largest = int(grey.max())
    if grey.min() == largest:
        raise UnreadableImageError(f"blank: every pixel is {largest}")
    if grey.dtype == np.uint16 and settings.bits is not None and largest >= 1 << settings.bits:
        needed = largest.bit_length()
        raise UnreadableImageError(
            f"a value of {largest} does not fit data.bits={settings.bits}; set data.bits={needed} or null"
        )
    return resize(grey, settings.size, settings.resize), largest


def read_grey(path: Path) -> np.ndarray:
    """The image of a file in grey, upright, in the file's own depth.

    Colour becomes its luma (ITU-R 601-2; exact where red, green and blue agree), transparency is ignored, EXIF
    orientation applied. Of DICOM: `lungdet.data.dicom.pixels`.

    Returns:
        (h, w) uint8, or uint16 for 16-bit files, values as they stand in the file. DICOM is 8 bits, as it is shown.

    Raises:
        UnreadableImageError: no such file, no image, truncated, damaged, several images, a depth that cannot be kept,
            or DICOM of something else than a frontal chest.
        InputError: DICOM, and pydicom is not installed.
        OSError: the disk failed or the file may not be read; nothing is wrong with the image.
    """
    try:
        with Path(path).open("rb") as file:
            return _decode(file)
    except (UnreadableImageError, InputError, MemoryError):
        raise
    except FileNotFoundError:
        raise UnreadableImageError("no such file") from None
    except IsADirectoryError as error:
        raise UnreadableImageError(error.strerror.lower()) from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError("no PNG, JPEG, TIFF, BMP or DICOM image, or its header is damaged") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(f"too large: {error}") from error
    except Exception as error:
        # Decoders raise whatever a damaged file leads them to. Other error numbers mean the disk, which damages none.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL, errno.ENAMETOOLONG):
            raise
        raise UnreadableImageError(str(error) or type(error).__name__) from error


def is_image(path: Path) -> bool:
    """Whether a file of a folder is taken for a radiograph: by its name, or for DICOM by its first bytes."""
    return path.suffix.lower() in SUFFIXES or is_dicom(path)


def stem(path: str) -> str:
    """A path without an image's suffix; what follows the last dot of `1.2.840.10008` is none."""
    return path[: -len(suffix)] if (suffix := Path(path).suffix).lower() in SUFFIXES else path


def resize(grey: np.ndarray, size: int, how: str) -> np.ndarray:
    """A (h, w) image as (size, size), same dtype; `how` is one of `RESIZES`."""
    height, width = grey.shape
    if how == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        grey = grey[top : top + side, left : left + side]
    if how != "pad":
        return _scale(grey, size, size)
    longer = max(height, width)
    height, width = (max(1, round(edge * size / longer)) for edge in (height, width))
    square = np.zeros((size, size), grey.dtype)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = _scale(grey, height, width)
    return square


@contextmanager
def opencv_on_one_thread() -> Iterator[None]:
    """Where whole images keep the cores busy already, OpenCV's own threads would only wait for one another."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _scale(grey: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area means where an axis shrinks, linear where it grows; neither goes beyond the image's own values."""
    # One call would be linear on both axes as soon as one grows, and skip pixels on the other.
    smaller = (min(grey.shape[1], width), min(grey.shape[0], height))
    shrunk = cv2.resize(grey, smaller, interpolation=cv2.INTER_AREA)
    return shrunk if smaller == (width, height) else cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR)


def _decode(file: BinaryIO) -> np.ndarray:
    head = file.read(132)
    file.seek(0)
    if not head:
        raise UnreadableImageError("empty file")
    if starts_dicom(head):
        return dicom.read(file, LARGEST)
    with Image.open(file, formats=FORMATS) as image:  # reads the header alone
        if image.width * image.height > LARGEST:
            raise UnreadableImageError(
                f"{image.width} x {image.height} pixels are more than {LARGEST:,}; scale it down"
            )
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # MPO: a camera's JPEG with its preview
            raise UnreadableImageError(f"{image.n_frames} images in one file; save each as a file of its own")
        _refuse_depth_that_would_be_lost(image, head)
        image.load()
        if image.getexif().get(0x0112, 1) != 1:  # orientation
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):
            return np.asarray(image).astype(np.uint16)
        if image.mode == "I":
            wide = np.asarray(image)
            if wide.min() < 0 or wide.max() > 65535:
                raise UnreadableImageError(
                    f"values from {wide.min()} to {wide.max()} do not fit 16 bits; save as 8- or 16-bit grey"
                )
            return wide.astype(np.uint16)
        if image.mode == "F":
            raise UnreadableImageError("floating-point pixels have no known white; save as 8- or 16-bit grey")
        return np.asarray(image if image.mode == "L" else image.convert("L"))


def _refuse_depth_that_would_be_lost(image: Image.Image, head: bytes) -> None:
    """Pillow opens 16-bit colour, and 16-bit grey with transparency, as 8 bits, and says nothing."""
    if image.mode.startswith(("I", "F")):
        if image.format == "TIFF" and image.tag_v2.get(262) == 0:  # photometric interpretation; applied to 8 bits only
            raise UnreadableImageError("16-bit TIFF in which 0 is white; save as 16-bit grey PNG, 0 black")
        return
    if image.format == "PNG":
        depth = head[24]  # the IHDR chunk's bit depth
    elif image.format == "TIFF":
        depth = max(image.tag_v2.get(258, (8,)))  # bits per sample
    else:
        return
    if depth > 8:
        raise UnreadableImageError(
            f"{depth} bits a channel with colour or transparency; save as plain {depth}-bit grey"
        )
