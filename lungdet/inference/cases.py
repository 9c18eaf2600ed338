"""Which images are to be predicted: a file, a folder, a list or a table of them, each known by its path."""

import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd

from lungdet.data import separator
from lungdet.data.dicom.tags import survey
from lungdet.data.files import files_below
from lungdet.data.manifest import visits_in_order
from lungdet.data.patients import is_placeholder, plain
from lungdet.data.store.images import SUFFIXES, is_image
from lungdet.errors import InputError, first_few
from lungdet.page.wording import number

log = logging.getLogger(__name__)


def read(images: Path, series: bool) -> pd.DataFrame:
    """The cases that a path names: an image, a folder (with those in it), a list (.txt) or a table (.csv).

    What worklists in a folder have drawn, or are drawing, is none of its images. A list has a path a line. A table has
    the column `path` and, for series, `patient_id` and where known `visit` and `age`. Paths in either start from its
    own folder.

    Args:
        images: the path.
        series: whether a case is read with the patient's earlier images, so that patients have to be known.

    Returns:
        A row an image: `image_id`, as the folder, list or table calls it; `file`; `patient_id`, `visit`, `age`.

    Raises:
        InputError: nothing is there, no image is in it, one is named twice, or a table's cell cannot be read.
    """
    if not images.exists():
        raise InputError(f"images={images}: there is no such file or folder ({images.absolute()})")
    if images.is_dir():
        paths = _found(images)
        table = cases([*map(str, paths)], paths)
    elif images.suffix.lower() == ".csv":
        table = _table(images)
    elif images.suffix.lower() == ".txt":
        names = _lines(images)
        table = cases(names, _below(images, names))
    else:
        table = cases([str(images)], [images])
    return require_patients(table, series, f"images={images}")


def given(images: object, series: bool) -> pd.DataFrame:
    """The cases that a program gives: a path or an array, a list of either, or a table; arrays are numbered.

    Raises:
        InputError: they are something else, there is none, or one is named twice; or as `require_patients`.
    """
    if isinstance(images, pd.DataFrame):
        if "path" not in images:
            raise InputError(f"images: no column path; there are {', '.join(map(str, images))}")
        table = images.reset_index(drop=True)
        names = [str(path) for path in table["path"]]
        named = _with_columns(cases(names, [Path(name) for name in names]), table)
    else:
        sources = [images] if isinstance(images, str | Path | np.ndarray) else [*images]
        names = [i if isinstance(image, np.ndarray) else str(image) for i, image in enumerate(sources)]
        named = cases(names, [_source(image) for image in sources])
    if named.empty:
        raise InputError("images: at least one image is needed")
    if len(repeated := named["image_id"][named["image_id"].duplicated()]):
        raise InputError(f"images: {repeated.iloc[0]} is named more than once; name each image once")
    return require_patients(named, series, "images")


def cases(names: list, files: list) -> pd.DataFrame:
    """Cases of which no more is known than what they are called, and the file or array of each."""
    table = pd.DataFrame({"image_id": names})
    table["file"] = pd.Series(files, dtype=object)
    return table


def require_patients(table: pd.DataFrame, series: bool, where: str) -> pd.DataFrame:
    """The cases with `patient_id`, `visit` and `age`; without series each is a patient of its own.

    For series, columns that there are not are read from the tags of DICOM files.

    Raises:
        InputError: series need patients, and a case has none; or a visit or an age is no number.
    """
    if not series:
        return table[["image_id", "file"]].assign(
            patient_id=[str(i) for i in range(len(table))], visit=0, age=np.float32("nan")
        )
    table = _tagged(table)
    if "patient_id" not in table:
        raise InputError(
            f"{where}: the run reads a patient's visits, so whose each image is has to be known: give a table with "
            "the columns path, patient_id and visit, or DICOM files"
        )
    patient = table["patient_id"].map(lambda cell: plain(str(cell)))
    anonymous = patient.map(is_placeholder)
    if anonymous.any():
        row = table[anonymous].iloc[0]
        raise InputError(f"{where}: {row.image_id}: patient_id {row.patient_id!r} names nobody; every image needs one")
    columns = {name: _numbers(table, name, where) for name in ("visit", "age")}
    if "visit" in table:
        order = pd.DataFrame({"patient_id": patient, "visit": columns["visit"]})
        wrong = order["visit"].isna() | order.duplicated()
        if wrong.any():
            raise InputError(
                f"{where}: {table['image_id'][wrong].iloc[0]}: visit {table['visit'][wrong].iloc[0]!r}; a number is "
                "needed that no other image of the patient has"
            )
        columns["visit"] = visits_in_order(order, ["visit"])
    else:
        columns["visit"] = patient.groupby(patient).cumcount()
    return table[["image_id", "file"]].assign(patient_id=patient, **columns)


def pieces(table: pd.DataFrame, size: int) -> list[pd.DataFrame]:
    """The cases in pieces of about this many, each with all images of its patients, in the order of their visits."""
    place = pd.factorize(table["patient_id"])[0]
    order = np.lexsort((table["visit"], place))
    table, place = table.iloc[order].reset_index(drop=True), place[order]
    starts, begun = [0], np.flatnonzero(np.diff(place)) + 1
    for start in begun.tolist():
        if start - starts[-1] >= size:
            starts.append(start)
    return [table.iloc[start:end] for start, end in zip(starts, [*starts[1:], len(table)], strict=True)]


def _tagged(table: pd.DataFrame) -> pd.DataFrame:
    """The cases with the columns that they lack and the tags of DICOM files have; who is not named there is alone."""
    if {"patient_id", "visit", "age"} <= {*table} or not all(isinstance(file, Path) for file in table["file"]):
        return table
    tags = survey(table["file"].tolist(), table.assign(dataset=""))
    if tags is None:
        return table
    if "patient_id" not in table and tags["patient_id"].notna().any():
        table = table.assign(patient_id=tags["patient_id"].fillna(table["image_id"]))
    if "patient_id" in table and "visit" not in table:
        table = table.assign(visit=visits_in_order(table.assign(time=tags["time"]), ["time"]))
    return table if "age" in table else table.assign(age=tags["age"])


def _found(folder: Path) -> list[Path]:
    images, ignored = [], []
    for file in files_below(folder):
        (images if is_image(file) else ignored).append(file)
    if not images:
        raise InputError(
            f"images={folder}: no image in this folder, no DICOM file and none called {', '.join(SUFFIXES)}"
        )
    if ignored:
        files_ignored = number(len(ignored), "file")
        log.info(
            "%s: %s left out, neither an image by its name nor DICOM: %s", folder, files_ignored, first_few(ignored, 3)
        )
    return images


def _lines(file: Path) -> list[str]:
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"images={file}: a list is a text in UTF-8, a path a line ({error})") from error
    names = [name for name in names if name]
    if not names:
        raise InputError(f"images={file}: no path in it")
    return names


def _table(file: Path) -> pd.DataFrame:
    try:
        table = separator.read(file)
    except ValueError as error:
        raise InputError(f"images={file}: {error}") from error
    if "path" not in table:
        raise InputError(f"images={file}: no column path; there are {', '.join(table.columns)}")
    if table.empty:
        raise InputError(f"images={file}: there is a header and no row")
    if (table["path"] == "").any():
        raise InputError(
            f"images={file}, line {table.index[table['path'] == ''][0] + 2}, column path: a path is needed"
        )
    table = table.reset_index(drop=True)
    names = table["path"].tolist()
    return _with_columns(cases(names, _below(file, names)), table)


def _with_columns(named: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The cases with what else their table says."""
    return named.join(table.drop(columns=["path", "image_id", "file"], errors="ignore"))


def _below(source: Path, names: list[str]) -> list[Path]:
    """The files that a list or table names.

    Raises:
        InputError: one is named twice, or none is there.
    """
    files = [source.parent / Path(name).expanduser() for name in names]
    first = {}
    for name, file in zip(names, map(os.path.normpath, files), strict=True):
        if file in first:
            raise InputError(f"images={source}: {name} stands there more than once; name each image once")
        first[file] = name
    if not any(map(os.path.isfile, files)):
        raise InputError(
            f"images={source}: none of its {len(files)} images is there, the first {files[0].absolute()}; paths start "
            "from its own folder"
        )
    return files


def _numbers(table: pd.DataFrame, column: str, where: str) -> pd.Series:
    """A column as numbers, NaN where empty or not there."""
    if column not in table:
        return pd.Series(np.nan, table.index, dtype="float32")
    cells = table[column].replace("", None)
    numbers = pd.to_numeric(cells, errors="coerce").astype("float64")
    wrong = cells.notna() & ~np.isfinite(numbers)
    if wrong.any():
        row = table[wrong].iloc[0]
        raise InputError(f"{where}: {row.image_id}: {column} {row[column]!r}; a number or nothing is needed")
    return numbers


def _source(image: object) -> Path | np.ndarray:
    if isinstance(image, np.ndarray):
        if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
            raise InputError(f"images: an array {image.shape} of {image.dtype}; (h, w) of uint8 or uint16 is needed")
        return image
    if not isinstance(image, str | Path):
        raise InputError(f"images: {type(image).__name__} is no path and no array")
    return Path(image).expanduser()
