"""Which DICOM files hold a single frontal chest radiograph, as far as their tags say; all others are refused."""

import re
import unicodedata
from typing import TYPE_CHECKING

from lungdet.data.dicom.header import tag, text
from lungdet.errors import UnreadableImageError

if TYPE_CHECKING:
    from pydicom import Dataset

TAGS = (
    "Modality", "NumberOfFrames", "BodyPartExamined", "ViewPosition", "PatientOrientation", "ImageLaterality",
)  # fmt: skip
"""What `require_chest` reads."""

MODALITIES = frozenset(("CR", "DX", "DR", "RG", "OT"))
"""Radiographs: computed, digital (DR in older files) and scanned films (RG, or OT, which says nothing)."""

_CHEST = ("CHEST", "THORAX", "TORAX", "LUNG")
_VIEWS = {"AP": "AP", "ANTEROPOSTERIOR": "AP", "PA": "PA", "POSTEROANTERIOR": "PA", "FRONTAL": None}
_LONGEST = 40  # signs of a value that is quoted
_LATERAL = frozenset(("LATERAL", "LAT", "LL", "RL", "XTABLE", "OBLIQUE", "RAO", "LAO", "RPO", "LPO"))


def require_chest(dataset: "Dataset") -> None:
    """Pass only a file of one frontal chest radiograph. What a tag does not say is no reason to refuse.

    Args:
        dataset: `TAGS` of it.

    Raises:
        UnreadableImageError: a tag says otherwise; the message names it with its value.
    """
    modality = text(dataset, "Modality").upper()
    if modality and modality not in MODALITIES:
        _refuse("Modality", modality, "no radiograph")
    if (frames := text(dataset, "NumberOfFrames")) not in ("", "0", "1"):
        _refuse("NumberOfFrames", frames, "a single image is needed; save each as a file of its own")
    part = body_part(dataset)
    if part and not any(name in part for name in _CHEST):
        _refuse("BodyPartExamined", part, "no chest")
    words = _words(dataset, "ViewPosition")
    if words and (words[0] not in _VIEWS or _LATERAL & {*words}):
        _refuse("ViewPosition", " ".join(words), "no frontal view")
    # Whereto the rows run: to a side of the patient in a frontal view, to the front or back in a lateral one.
    row = text(dataset, "PatientOrientation").strip("[]'").upper()
    if row[:1] in ("A", "P"):
        _refuse("PatientOrientation", row.replace("', '", "\\"), "no frontal view")
    side = text(dataset, "ImageLaterality").upper()
    if side in ("L", "R") and not words:
        _refuse("ImageLaterality", side, "of one side, and no ViewPosition says that it is frontal")


def view(dataset: "Dataset") -> str | None:
    """`PA` or `AP`; None where ViewPosition does not say."""
    words = _words(dataset, "ViewPosition")
    return _VIEWS.get(words[0]) if words else None


def body_part(dataset: "Dataset") -> str:
    """BodyPartExamined in capitals without accents, empty where it does not say."""
    letters = unicodedata.normalize("NFKD", text(dataset, "BodyPartExamined")).upper()
    part = "".join(sign for sign in letters if not unicodedata.combining(sign))
    return "" if part in ("UNKNOWN", "UNDEFINED", "OTHER") else part


def _words(dataset: "Dataset", name: str) -> list[str]:
    """`POSTERO_ANTERIOR` is one word, `AP AXIAL` are two."""
    value = re.sub(r"O[ _-]+(?=(ANT|POST)ERIOR)", "O", text(dataset, name).upper())
    return re.sub(r"[^A-Z]+", " ", value).split()


def _refuse(name: str, value: str, reason: str) -> None:
    if len(value) > _LONGEST:  # damaged, it has swallowed what follows, which may be a patient's name
        value = f"of {len(value)} signs"
    raise UnreadableImageError(f"{tag(name)} {value}: {reason}")
