"""ChestX-ray14's csv files in every form they are found in: the table of images (two releases) and the boxes."""

import logging
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from lungdet.data.manifest import ManifestError, manifest
from lungdet.errors import DatasetError, check_folder, first_few
from lungdet.findings import CHESTXRAY14_FINDINGS, from_tags

log = logging.getLogger(__name__)

RELEASES: dict[int, str] = {2020: "Data_Entry_2017_v2020.csv", 2017: "Data_Entry_2017.csv"}
BOXES = "BBox_List_2017.csv"
LAYOUT = "Data_Entry_2017_v2020.csv and images/*.png, or images_001/images/*.png .. images_012/images/*.png"

# Spellings of a column differ in case, spaces, underscores and signs only, in every copy seen.
_COLUMNS = {
    "imageindex": "Image Index",
    "findinglabels": "Finding Labels",
    "followup": "Follow-up #",
    "patientid": "Patient ID",
    "patientage": "Patient Age",
    "patientgender": "Patient Gender",
    "viewposition": "View Position",
}
_OLDEST = 120  # years; nobody was older, and the table of 2017 goes up to 414


def read_table(root: Path, release: int = 2020) -> pd.DataFrame:
    """A release's whole table as a manifest, whether or not the images are there, sorted by image.

    `path` is where the first layout would have the image. A table that was shortened to some of its rows is as good.

    Raises:
        DatasetError: no such folder or table, a column that is missing, a value that can't be read.
        UnknownFindingError: a label that the vocabulary lacks.
    """
    path = _table_file(root, release)
    table = _columns(_read_csv(path), path)
    names = table["Image Index"].str.strip()
    if names.duplicated().any():
        raise DatasetError(f"{path}, column Image Index: {names[names.duplicated()].iloc[0]} stands on several rows")
    stems = names.str.replace(r"\.\w+$", "", regex=True)
    number = _whole_numbers(table["Patient ID"], path)
    sex, view = (table[column].str.strip().str.upper() for column in ("Patient Gender", "View Position"))
    description = pd.DataFrame(
        {
            "image_id": "chestxray14/" + stems,
            "dataset": "chestxray14",
            "path": "images/" + names,
            "patient_id": "chestxray14/" + number.astype("str").str.zfill(8),
            "visit": _whole_numbers(table["Follow-up #"], path),
            "age": _years(table["Patient Age"], path.name),
            "sex": sex.where(sex.isin(["F", "M", "O"])),
            "view": view.where(view != ""),
        }
    )
    labels = from_tags(table["Finding Labels"], f"{path}, column Finding Labels")
    order = description["image_id"].argsort()
    try:
        return manifest(description.iloc[order], labels.iloc[order])
    except ManifestError as error:
        raise DatasetError(f"{path}: {error}") from error


def boxes(root: Path) -> pd.DataFrame:
    """The hand-drawn boxes, a row a box.

    Returns:
        `image_id`, `finding` (a column name of the manifest), and `x`, `y` (upper left corner), `width`, `height` in
        pixels of the 1024 x 1024 image.

    Raises:
        DatasetError: the file is missing or has other columns.
        UnknownFindingError: a finding that the vocabulary lacks.
    """
    path = root / BOXES
    if not path.is_file():
        raise DatasetError(f"chestxray14: there is no {BOXES} in {root.absolute()}; the dataset's page has it")
    # The header says `Bbox [x,y,w,h],,,` : nine fields over rows of six, so columns go by place.
    table = _read_csv(path).iloc[:, :6]
    if table.shape[1] < 6:
        raise DatasetError(f"{path}: six columns are needed (image, finding, x, y, w, h), found {table.shape[1]}")
    table.columns = ["image_id", "finding", "x", "y", "width", "height"]
    findings = from_tags(table["finding"], f"{path}, second column")[list(CHESTXRAY14_FINDINGS)]
    numbers = table[["x", "y", "width", "height"]].apply(pd.to_numeric, errors="coerce")
    if numbers.isna().any(axis=None):
        row = int(np.flatnonzero(numbers.isna().any(axis=1))[0])
        raise DatasetError(f"{path}, line {row + 2}: x, y, w, h are no numbers: {first_few(table.iloc[row, 2:])}")
    stems = "chestxray14/" + table["image_id"].str.strip().str.replace(r"\.\w+$", "", regex=True)
    return pd.concat([stems, findings.idxmax(axis=1).rename("finding").astype("str"), numbers], axis=1)


def _table_file(root: Path, release: int) -> Path:
    check_folder(root, "chestxray14", LAYOUT)
    if release not in RELEASES:
        raise DatasetError(f"data.release={release}: the table was released in {' and '.join(map(str, RELEASES))}")
    path = root / RELEASES[release]
    if not path.is_file():
        years = [year for year, name in RELEASES.items() if (root / name).is_file()]
        advice = f"; that of {years[0]} is there: data.release={years[0]}" if years else f". Expected there: {LAYOUT}"
        raise DatasetError(
            f"chestxray14: there is no table {path.name} (data.release={release}) in {root.absolute()}{advice}"
        )
    return path


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        # Rows may end in a comma that the header lacks: without index_col=False the first column would become the
        # index, and with it pandas warns of the empty cells it drops.
        with warnings.catch_warnings(action="ignore", category=pd.errors.ParserWarning):
            table = pd.read_csv(path, dtype="str", keep_default_na=False, encoding="utf-8", index_col=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not a comma-separated table in UTF-8 ({error})") from error
    if table.empty:
        raise DatasetError(f"{path}: there is a header and no row")
    return table


def _columns(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The needed columns under their official names."""
    plain = {re.sub(r"[^a-z]", "", column.lower()): column for column in reversed(table.columns)}
    if "patientsex" in plain:  # what the publisher calls it today
        plain.setdefault("patientgender", plain["patientsex"])
    missing = [column for key, column in _COLUMNS.items() if key not in plain]
    if missing:
        raise DatasetError(f"{path}: no column {', '.join(missing)}; it has {', '.join(table.columns)}")
    return table[[plain[key] for key in _COLUMNS]].set_axis(list(_COLUMNS.values()), axis=1)


def _whole_numbers(column: pd.Series, path: Path) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = ~numbers.between(0, 2**31 - 1) | (numbers % 1 != 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DatasetError(
            f"{path}, line {row + 2}, column {column.name}: {column.iloc[row]!r} is no whole number below 2^31"
        )
    return numbers.astype("int64")


def _years(column: pd.Series, file: str) -> pd.Series:
    """Ages in years from `057`, `057Y`, `018M` (months) or `001D` (days); NaN where that is not an age."""
    codes, texts = pd.factorize(column.str.strip())
    years = np.full(len(texts), np.nan)
    for place, text in enumerate(texts):
        if match := re.fullmatch(r"(\d+(?:\.\d+)?)([YMD]?)", text.upper()):
            years[place] = float(match[1]) / {"M": 12, "D": 365.25}.get(match[2], 1)
    ages = pd.Series(years[codes], index=column.index)
    impossible = (ages > _OLDEST) | (ages.isna() & (column.str.strip() != ""))
    if impossible.any():
        log.info(
            "chestxray14: %d ages in %s can't be (above %d years, or no age) and are taken as unknown: %s",
            int(impossible.sum()),
            file,
            _OLDEST,
            first_few(column[impossible].unique()),
        )
    return ages.where(~impossible)
