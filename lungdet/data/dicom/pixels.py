"""The pixels of a DICOM file become the grey picture that a reader is shown: one table from stored values to 8 bits.

Modality transformation (a table, or slope and intercept), then what the file asks to be shown (the first table of its
VOI LUTs, else its first window, else all that its bits can hold), then black and white the right way round. Each of
these depends on a pixel's value alone, so they are worked out once for each value that a pixel can have.

8 bits, because that is what a window leads to: a file read here is the picture that a viewer exports as PNG, and no
depth has to be guessed. Without table and window the range is the bits', not the image's own smallest and largest
values: those would tell images, and with them scanners, apart by their brightest spot.
"""

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from lungdet.data.dicom import apart, chest
from lungdet.data.dicom.header import first, header, library, tag, text
from lungdet.errors import UnreadableImageError

if TYPE_CHECKING:
    from pydicom import Dataset

TAGS = (
    "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PlanarConfiguration", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept",
    "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
)  # fmt: skip


DECODERS = {
    "1.2.840.10008.1.2.5": "pydicom",  # RLE; by the plug-in, a damaged file raises what is no Exception
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG baseline
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # JPEG 2000
    "1.2.840.10008.1.2.4.91": "pylibjpeg",
}
"""Who decodes what several could, by transfer syntax: those that no damaged file brought to an end."""


def read(file: BinaryIO, largest: int) -> np.ndarray:
    """The radiograph as it is shown, 0 black and 255 white.

    Args:
        file: at its beginning.
        largest: pixels of the largest image that is decoded.

    Returns:
        (h, w) uint8.

    Raises:
        UnreadableImageError: no frontal chest radiograph (`chest.require_chest`), colour, no pixels, too many of them,
            truncated, damaged, in a form that nothing installed decodes, or tags that cannot be applied.
        InputError: pydicom is not installed.
    """
    dataset = header(file, (*chest.TAGS, *TAGS), pixels=True)
    chest.require_chest(dataset)
    bits, signed = _require_grey(dataset, largest)
    pixels = _decoded(dataset, file)
    if pixels.shape != (dataset.Rows, dataset.Columns):
        raise UnreadableImageError(f"pixels of the shape {pixels.shape}; a single image is needed")
    shades = greys(dataset, bits, signed)
    return shades[_patterns(pixels, bits, signed)]


def greys(dataset: "Dataset", bits: int, signed: bool) -> np.ndarray:
    """What each pattern of the stored bits is shown as, (2^bits,) uint8; those of negative numbers come last."""
    stored = np.arange(1 << bits)
    if signed:
        stored[1 << (bits - 1) :] -= 1 << bits
    brightness = _brightness(dataset, *_modality(dataset, stored))
    if text(dataset, "PhotometricInterpretation") == "MONOCHROME1":  # the smallest value is white
        brightness = 1 - brightness
    shades = np.rint(255 * brightness).astype(np.uint8)
    shades[_padding(dataset, stored, bits)] = 0
    return shades


def form(path: Path) -> tuple[str, int, int, int]:
    """Photometric interpretation, bits of a value, width and height, as a file's header has them."""
    dataset = header(path, TAGS)
    return text(dataset, "PhotometricInterpretation"), dataset.BitsStored, dataset.Columns, dataset.Rows


def ranged(dataset: "Dataset") -> bool:
    """Whether a file says which of its values are to be shown."""
    windowed = dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None
    return bool(dataset.get("VOILUTSequence")) or windowed


def _require_grey(dataset: "Dataset", largest: int) -> tuple[int, bool]:
    """The bits of a value, and whether it has a sign; the pixels are not decoded yet."""
    if "PixelData" not in dataset:
        raise UnreadableImageError(f"no {tag('PixelData')}, or the file is cut")
    colours = text(dataset, "PhotometricInterpretation")
    if colours not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnreadableImageError(f"{tag('PhotometricInterpretation')} {colours or 'missing'}: a grey image is needed")
    numbers = {}
    for name in ("Rows", "Columns", "BitsStored", "HighBit", "PixelRepresentation"):
        number = first(dataset, name)
        if number is None:
            raise UnreadableImageError(f"no {tag(name)}")
        numbers[name] = int(number)
    if numbers["Rows"] * numbers["Columns"] > largest:
        raise UnreadableImageError(
            f"{numbers['Columns']} x {numbers['Rows']} pixels are more than {largest:,}; scale it down"
        )
    bits = numbers["BitsStored"]
    if not 1 <= bits <= 16:
        raise UnreadableImageError(f"{tag('BitsStored')} {bits}: 1 to 16 are read")
    if numbers["HighBit"] != bits - 1:
        raise UnreadableImageError(f"{tag('HighBit')} {numbers['HighBit']}: {bits - 1} is needed, the value's own")
    return bits, bool(numbers["PixelRepresentation"])


def _decoded(dataset: "Dataset", file: BinaryIO) -> np.ndarray:
    syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
    file.seek(0)
    content = file.read() if syntax in apart.SYNTAXES else None
    try:
        if content is not None:
            return apart.decode(content)
        decoder = DECODERS.get(syntax, "")
        # Else pydicom would drop the bits of values that are larger than they should be.
        return library().pixels.pixel_array(dataset, decoding_plugin=decoder, correct_unused_bits=False)
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged file leads a decoder to
        words = " ".join(str(error).split()) or type(error).__name__
        form = f"{tag('TransferSyntaxUID')} {getattr(syntax, 'name', syntax)}"
        raise UnreadableImageError(f"{tag('PixelData')} cannot be decoded, {form}: {words}") from error


def _patterns(pixels: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """The stored bits of each pixel as a number without sign.

    Raises:
        UnreadableImageError: further bits hold something: the values are larger than the tag says, or an overlay.
    """
    pixels = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
    if bits < 8 * pixels.itemsize:
        beyond = pixels >> np.array(bits - 1 if signed else bits, dtype=pixels.dtype)
        # The bits above a number with a sign are filled with it, or left empty.
        if beyond.min() < -1 or beyond.max() > signed:
            raise UnreadableImageError(f"values beyond the {bits} bits of {tag('BitsStored')}")
    patterns = pixels.view(f"u{pixels.itemsize}")
    return patterns & np.array((1 << bits) - 1, dtype=patterns.dtype)


def _modality(dataset: "Dataset", stored: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Stored values in the units that windows are in, and between which limits they can lie."""
    if dataset.get("ModalityLUTSequence"):
        return _looked_up(dataset, "ModalityLUTSequence", stored)
    slope, intercept = first(dataset, "RescaleSlope"), first(dataset, "RescaleIntercept")
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if not (np.isfinite(slope) and slope and np.isfinite(intercept)):
        raise UnreadableImageError(f"{tag('RescaleSlope')} {slope:g}, {tag('RescaleIntercept')} {intercept:g}")
    values = stored * slope + intercept
    return values, (values.min(), values.max())


def _brightness(dataset: "Dataset", values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """0 to 1 for what the smallest value and those below are shown as, up to the largest's."""
    if dataset.get("VOILUTSequence"):
        levels, (_, highest) = _looked_up(dataset, "VOILUTSequence", values)
        return levels / highest
    centre, width = first(dataset, "WindowCenter"), first(dataset, "WindowWidth")
    if centre is None or width is None:
        return (values - limits[0]) / (limits[1] - limits[0])
    function = text(dataset, "VOILUTFunction").upper() or "LINEAR"
    # The formulas of DICOM PS3.3, C.11.2.1.
    if function == "SIGMOID" and width > 0:
        return 1 / (1 + np.exp((-4 * (values - centre) / width).clip(-700, 700)))
    if function == "LINEAR_EXACT" and width > 0:
        return ((values - centre) / width + 0.5).clip(0, 1)
    if function == "LINEAR" and width > 1:
        return ((values - (centre - 0.5)) / (width - 1) + 0.5).clip(0, 1)
    if function == "LINEAR" and width == 1:
        return (values > centre - 0.5).astype(float)
    raise UnreadableImageError(f"{tag('WindowWidth')} {width:g} with {tag('VOILUTFunction')} {function}")


def _looked_up(dataset: "Dataset", name: str, values: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Values by the first table of a sequence, and between which limits its depth lets them lie.

    Not by pydicom 3, which counts the places of a table of 8-bit entries in 8 bits.
    """
    try:
        item = dataset[name].value[0]
        entries, start, depth = (int(number) for number in item.LUTDescriptor)
        entries = entries % (1 << 16) or 1 << 16  # 0 is 65536, and a large number may be read with a sign
        if start >= 1 << 15 and values.min() < 0:  # written without its sign
            start -= 1 << 16
        data = item.LUTData
        if isinstance(data, bytes):
            wide = len(data) >= 2 * entries
            order = "<" if dataset.original_encoding[1] else ">"
            data = np.frombuffer(data, f"{order}u2" if wide else np.uint8)
        table = np.atleast_1d(np.asarray(data, dtype=np.int64))[:entries]
    except Exception as error:  # of a damaged sequence
        raise UnreadableImageError(f"{tag(name)} is damaged ({type(error).__name__})") from None
    if not (len(table) == entries and 1 <= depth <= 16 and table.max() < 1 << depth):
        raise UnreadableImageError(f"{tag(name)}: {len(table)} entries up to {table.max()} contradict its descriptor")
    places = np.rint(values - start).clip(0, len(table) - 1).astype(np.intp)
    return table[places].astype(float), (0.0, float((1 << depth) - 1))


def _padding(dataset: "Dataset", stored: np.ndarray, bits: int) -> np.ndarray:
    """Which stored values stand for no measurement, but for what surrounds the image: shown as black."""
    padding, limit = first(dataset, "PixelPaddingValue"), first(dataset, "PixelPaddingRangeLimit")
    if padding is None:
        return np.zeros(len(stored), bool)
    ends = [int(number) for number in (padding, padding if limit is None else limit)]
    # The tag may be read with a sign or without; the pattern of its bits is the same.
    low, high = sorted(int(stored[end & ((1 << bits) - 1)]) for end in ends)
    return (stored >= low) & (stored <= high)
