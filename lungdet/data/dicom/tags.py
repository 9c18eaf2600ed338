"""What DICOM headers say of patients and exposures, as columns of a manifest. No date and no id leaves this module."""

import logging
import math
import re
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from lungdet.data.dicom import chest, pixels
from lungdet.data.dicom.header import header, is_dicom, tag, text
from lungdet.data.dicom.pseudonyms import pseudonyms
from lungdet.data.patients import folded, is_placeholder, plain
from lungdet.errors import UnreadableImageError
from lungdet.machine.progress import progress

if TYPE_CHECKING:
    from pydicom import Dataset

log = logging.getLogger(__name__)

_PATIENT = ("PatientID", "PatientAge", "PatientBirthDate", "PatientSex")
_TIME = ("StudyDate", "StudyTime", "SeriesNumber", "InstanceNumber")
_PICTURE = ("VOILUTSequence", "WindowCenter", "WindowWidth")
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_OLDEST = 120


class _Tags(NamedTuple):
    """Of one file; `patient` and `time` are a person's and are only counted and compared."""

    patient: str | None
    time: tuple | None
    age: float
    sex: str | None
    view: str | None
    silent: tuple[str, ...]


def survey(files: Sequence[Path], images: pd.DataFrame, key: bytes | None = None) -> pd.DataFrame | None:
    """What the tags of images say, a row each; None where no file is DICOM. What they do not say is counted in the log.

    Args:
        files: N of them; those that are not DICOM have rows without values.
        images: `image_id` and `dataset` of each (N rows).
        key: of pseudonyms, see `pseudonyms`.

    Returns:
        Under the index of `images`: `patient_id`, a pseudonym, missing where no tag says whose an image is; `time`, a
        number that grows with it, NaN likewise; `age` in years, `sex` and `view` as in a manifest.
    """
    present = [is_dicom(file) for file in files]
    if not any(present):
        return None
    with progress("reading DICOM headers", sum(present)) as advance:
        tags: list[_Tags | None] = []
        for file, dicom in zip(files, present, strict=True):
            tags.append(_read(file) if dicom else None)
            if dicom:
                advance()
    ids = pd.Series([row and row.patient for row in tags], images.index, dtype="str")
    times = sorted({row.time for row in tags if row and row.time})
    place = {time: float(number) for number, time in enumerate(times)}
    table = pd.DataFrame(
        {
            "patient_id": pseudonyms(ids, images, key),
            "time": [place.get(row.time, math.nan) if row else math.nan for row in tags],
            "age": [row.age if row else math.nan for row in tags],
            "sex": pd.Series([row and row.sex for row in tags], images.index, dtype="str"),
            "view": pd.Series([row and row.view for row in tags], images.index, dtype="str"),
        },
        images.index,
    )
    _tell(tags, ids, table)
    return table


def names_patients(tags: pd.DataFrame | None) -> bool:
    """Whether what `survey` has found says of any image whose it is."""
    return tags is not None and bool(tags["patient_id"].notna().any())


def contradictions(table: pd.DataFrame, tags: pd.DataFrame) -> list[str]:
    """Where a table and the tags say different things of the same images, with counts: `sex (3 images)`.

    Args:
        table: of the columns `patient_id`, `age`, `sex`, `view` those that the user's own table has.
        tags: of `survey`, under the same index.
    """
    kinds = []
    for column in ("sex", "view", "age"):
        if column not in table:
            continue
        comparable = table[column].notna() & tags[column].notna()
        differ = (table[column] - tags[column]).abs() > 1 if column == "age" else table[column] != tags[column]
        if count := int((comparable & differ).sum()):
            kinds.append(f"{column} ({count:,} images)")
    if "patient_id" in table:
        pairs = pd.DataFrame({"table": table["patient_id"], "tags": tags["patient_id"]}).dropna().drop_duplicates()
        if count := int(pairs["table"].duplicated().sum() + pairs["tags"].duplicated().sum()):
            kinds.append(f"patient_id ({count:,} patients are several in the other)")
    return kinds


def _read(file: Path) -> _Tags | None:
    """None of a damaged header: its image is left out when it is decoded, with the reason."""
    try:
        return _of(header(file, (*_PATIENT, *_TIME, *_PICTURE, *chest.TAGS)))
    except UnreadableImageError:
        return None


def _of(dataset: "Dataset") -> _Tags:
    patient = plain(text(dataset, "PatientID"))
    known = {
        "PatientID": not is_placeholder(patient),
        "StudyDate": bool(_date(text(dataset, "StudyDate"))),
        "Modality": bool(text(dataset, "Modality")),
        "BodyPartExamined": bool(chest.body_part(dataset)),
        "ViewPosition": bool(text(dataset, "ViewPosition")),
        "WindowWidth": pixels.ranged(dataset),
    }
    sex = text(dataset, "PatientSex").upper()
    return _Tags(
        patient=patient if known["PatientID"] else None,
        time=_time(dataset) if known["StudyDate"] else None,
        age=_age(dataset),
        sex=sex if sex in ("F", "M", "O") else None,
        view=chest.view(dataset),
        silent=tuple(name for name, value in known.items() if not value),
    )


def _time(dataset: "Dataset") -> tuple:
    """What orders a patient's images: the study, then the image's place in it."""
    numbers = [re.sub(r"\D", "", text(dataset, name)) for name in _TIME[2:]]
    return (_date(text(dataset, "StudyDate")), text(dataset, "StudyTime"), *(int(number or 0) for number in numbers))


def _age(dataset: "Dataset") -> float:
    """Years, NaN where neither the age nor two dates say it."""
    years = math.nan
    if written := re.fullmatch(r"(\d{1,3})([DWMY])", text(dataset, "PatientAge").upper()):
        years = int(written[1]) * _YEARS[written[2]]
    else:
        birth, study = (_date(text(dataset, name)) for name in ("PatientBirthDate", "StudyDate"))
        if birth and study:
            years = float((study - birth).days // 365.25)
    return years if 0 <= years <= _OLDEST else math.nan


def _date(digits: str) -> date | None:
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])) if re.fullmatch(r"\d{8}", digits) else None
    except ValueError:
        return None


def _tell(tags: Sequence[_Tags | None], ids: pd.Series, table: pd.DataFrame) -> None:
    """How many files there are, of how many patients, and what the tags of how many do not say."""
    read = [row for row in tags if row]
    silent = Counter(name for row in read for name in row.silent)
    unsaid = "; ".join(f"{count:,} without {tag(name)}" for name, count in sorted(silent.items()))
    log.info("%s DICOM files of %s patients%s", f"{len(read):,}", f"{ids.nunique():,}", f"; {unsaid}" if unsaid else "")
    if silent["PatientID"]:
        message = "%s DICOM files have no %s that names somebody: each counts as its own patient"
        log.warning(message, f"{silent['PatientID']:,}", tag("PatientID"))
    alike = ids.dropna().drop_duplicates().map(folded)
    if count := int(alike.duplicated().sum()):
        spelling = "%s patients' %s differ in spelling alone and count as different people"
        log.warning(spelling, f"{count:,}", tag("PatientID"))
    times = table.loc[ids.notna() & table.groupby("patient_id")["time"].transform("size").gt(1), "time"]
    if count := int(times.isna().sum()):
        log.warning(
            "%s DICOM files of patients with several have no %s: they count as taken after the others",
            f"{count:,}", tag("StudyDate"),
        )  # fmt: skip
