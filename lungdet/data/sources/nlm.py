"""What the two tuberculosis sets of the National Library of Medicine share: folders, file names, reading texts."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd

from lungdet.data.datamodule import RadiographDataModule
from lungdet.data.manifest import manifest
from lungdet.errors import DatasetError, check_folder, first_few
from lungdet.findings import from_tuberculosis

log = logging.getLogger(__name__)


class NLMDataModule(RadiographDataModule):
    """One of the two sets, which says by what its files differ from the other's.

    Attributes:
        prefix: what file names begin with: `<prefix>_<number>_<0 normal, 1 tuberculosis>`.
        archive: the top folder of the official archive.
        view: the projection, where the publisher states one for every image.
        repeated: numbers of the images that show one patient, in order.
    """

    prefix: ClassVar[str]
    archive: ClassVar[str]
    view: ClassVar[str | None] = None
    repeated: ClassVar[tuple[tuple[str, ...], ...]] = ()

    @property
    def layout(self) -> str:
        """The folders and files that are expected, for messages."""
        example = f"{self.prefix}_0001_0"
        return f"CXR_png/{example}.png .. and ClinicalReadings/{example}.txt .. (or {self.archive}/ that holds the two)"

    def read(self) -> pd.DataFrame:
        """The manifest of the images that are in the folder, sorted by number; the folder may hold part of the set.

        The label is the last digit of the file's name. Age and sex come from the readings and are unknown where a
        reading is missing or not understood. A visit is the image's place among all of the patient's images, at hand
        or not.

        Raises:
            DatasetError: no such folder, no image, or one number twice.
        """
        check_folder(self.root, self.name, self.layout)
        places = (self.root, self.root / self.archive)
        base = next((folder for folder in places if (folder / "CXR_png").is_dir()), self.root)
        files = _image_files(base / "CXR_png", self)
        texts = _texts(base / "ClinicalReadings", [path.stem for path in files.values()])
        if not files:
            only = " There are readings, but they come without images." if (base / "ClinicalReadings").is_dir() else ""
            raise DatasetError(
                f"{self.name}: there is no image in {self.root.absolute()}.{only} Expected: {self.layout}"
            )
        readings = _readings(texts, len(files), self.name)
        patients = _patients(list(files), texts, self)
        rows = []
        for number, path in files.items():
            sex, age = readings.get(path.stem, Reading(None, None))
            patient, visit = patients[number]
            place = path.relative_to(self.root).as_posix()
            rows.append((path.stem, place, patient, visit, age, sex, path.stem.endswith("_1")))
        table = pd.DataFrame(rows, columns=["stem", "path", "patient", "visit", "age", "sex", "tuberculosis"])
        description = table[["path", "visit"]].assign(
            image_id=f"{self.name}/" + table["stem"],
            dataset=self.name,
            patient_id=f"{self.name}/" + table["patient"],
            age=table["age"].astype("float32"),
            sex=table["sex"],
            view=self.view or np.nan,
        )
        return manifest(description, from_tuberculosis(table["tuberculosis"]))


class Reading(NamedTuple):
    """What a reading text states; None where it does not, or not in a form that is understood."""

    sex: str | None
    age: float | None


_UNIT = {"y": 1.0, "m": 12.0, "w": 365.25 / 7, "d": 365.25}  # of them to a year
_AGE = r"(?P<age>\d+(?:\.\d+)?)\s*(?P<unit>y(?:ea)?rs?|y|months?|mths?|mos?|m|weeks?|wks?|w|days?|d)(?![a-z])"
_SEX = r"(?P<sex>female|femal|male|[mfo])(?![a-z])"
# "male 45yrs", "femal 32yrs", "female, 24 yrs", "male45yrs", "30 years": the text's first line.
_FIRST_LINE = re.compile(rf"\W*(?:{_SEX})?[\s,;:.]*(?:{_AGE})?", re.IGNORECASE)
# "Patient's Sex: F", "Patient's Age: 027Y": a line each.
_SEX_LINE = re.compile(rf"\bsex\s*:\s*{_SEX}", re.IGNORECASE)
_AGE_LINE = re.compile(rf"\bage\s*:\s*{_AGE}", re.IGNORECASE)
_LABELLED = re.compile(r"\b(?:sex|age)\s*:", re.IGNORECASE)


def parse_reading(text: str) -> Reading:
    """Sex ("F", "M", "O") and age in years (months and days as fractions) as a reading text states them.

    An age without a unit is not taken: the same texts give years, months and days.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if _LABELLED.search(text):
        sex, age = _SEX_LINE.search(text), _AGE_LINE.search(text)
    else:
        sex = age = _FIRST_LINE.match(lines[0]) if lines else None
    letter = sex["sex"][0].upper() if sex and sex["sex"] else None
    years = float(age["age"]) / _UNIT[age["unit"][0].lower()] if age and age["age"] else None
    return Reading(letter, years if years is not None and years <= 120 else None)


def same_patient(text: str, prefix: str) -> list[str]:
    """The numbers of other images that a reading says show the same patient: "(same pt as MCUCXR_0113_1)"."""
    statement = re.search(rf"same\s+p(?:atien)?t\.?\s+as((?:[\s,&]|and)*{prefix}_\d+_[01])+", text, re.IGNORECASE)
    numbers = re.findall(rf"{prefix}_(\d+)_[01]", statement[0], re.IGNORECASE) if statement else []
    return [_number(digits) for digits in numbers]


def _number(digits: str) -> str:
    """As the sets write it, with four digits: 1, 01 and 0001 are one image."""
    return digits.lstrip("0").zfill(4)


def _image_files(folder: Path, data: NLMDataModule) -> dict[str, Path]:
    """The images by their number, in order."""
    pattern = re.compile(rf"{data.prefix}_(\d+)_[01]\.(?:png|jpe?g)", re.IGNORECASE)
    files: dict[str, Path] = {}
    unnamed = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = pattern.fullmatch(path.name)
        if not match:
            unnamed.append(path.name)
            continue
        number = _number(match[1])
        if number in files:
            places = f"{files[number].relative_to(data.root)} and {path.relative_to(data.root)}"
            raise DatasetError(f"{data.name}: image {number} is twice in {data.root.absolute()}, as {places}; keep one")
        files[number] = path
    if unnamed:
        log.info(
            "%s: %d files in %s are not named like %s_0001_0.png and are left out: %s",
            data.name,
            len(unnamed),
            folder,
            data.prefix,
            first_few(unnamed),
        )
    return dict(sorted(files.items()))


def _texts(folder: Path, stems: list[str]) -> dict[str, str]:
    """The reading texts that are there, by the image's stem."""
    paths = ((stem, folder / f"{stem}.txt") for stem in stems)
    return {stem: path.read_bytes().decode("utf-8-sig", "replace") for stem, path in paths if path.is_file()}


def _readings(texts: Mapping[str, str], images: int, name: str) -> dict[str, Reading]:
    readings = {stem: parse_reading(text) for stem, text in texts.items()}
    if len(texts) < images:
        log.info(
            "%s: %d of %d images have no reading; their age and sex are unknown", name, images - len(texts), images
        )
    unclear = [stem for stem, reading in readings.items() if None in reading]
    if unclear:
        log.info(
            "%s: %d readings do not state both age and sex in a known form; what is not stated is unknown: %s",
            name,
            len(unclear),
            first_few(unclear),
        )
    return readings


def _patients(numbers: list[str], texts: Mapping[str, str], data: NLMDataModule) -> dict[str, tuple[str, int]]:
    """The patient (number of the first image) and the visit of every image.

    What the readings say is added to what is known of the set, so that neither missing readings nor a newer edition
    of them lets a patient pass for two.
    """
    groups = [set(group) for group in data.repeated]
    for stem, text in texts.items():
        if numbers_named := same_patient(text, data.prefix):
            group = {_number(stem.split("_")[1]), *numbers_named}
            overlapping = [known for known in groups if known & group]
            groups = [known for known in groups if not known & group] + [group.union(*overlapping)]
    place = {number: (number, 0) for number in numbers}
    for group in map(sorted, groups):
        place.update({number: (group[0], visit) for visit, number in enumerate(group)})
    return place
