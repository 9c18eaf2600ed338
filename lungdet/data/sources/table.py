"""A user's own radiographs: a csv file that names PNG or JPEG images and says what is known about each."""

import difflib
import logging
import posixpath
import re
import unicodedata
import warnings
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from lungdet.data.datamodule import RadiographDataModule
from lungdet.data.manifest import manifest, visits_in_order
from lungdet.data.patients import folded, is_placeholder, plain
from lungdet.errors import DatasetError, check_folder, first_few
from lungdet.findings import FINDINGS

log = logging.getLogger(__name__)

REQUIRED: tuple[str, ...] = ("path", "abnormal")
OPTIONAL: tuple[str, ...] = ("patient_id", "visit", "age", "sex", "view", "dataset", *FINDINGS)
_SEXES = {"m": "M", "male": "M", "f": "F", "female": "F", "o": "O", "other": "O"}


class TableDataModule(RadiographDataModule):
    """A user's own images, `data=table data.table=my.csv`.

    The file is comma-separated, UTF-8, one row an image, with a header of these names; an empty cell means unknown.

    - `path` (needed): the image file, relative to `root`. PNG or JPEG, 8 or 16 bit.
    - `abnormal` (needed): 1 or 0.
    - `patient_id`: whose image it is. **Without it every image counts as its own patient, and a patient on both
      sides of the split can't be seen.** Refused: one patient written in two ways (`1` and `001`, `A1` and `a1`), and
      what names nobody (`nan`, `unknown`, `-`).
    - `visit`: any numbers that grow with time within a patient; without it a patient's rows are in order of time.
    - `age` in years, `sex` (male, female, other, or M, F, O), `view` (PA, AP, ..).
    - `dataset`: the name of the source, where there are several; `table` without it. A patient is known by `dataset`
      and `patient_id`: in two tables of one name, patient 7 is one person.
    - any of the findings of `lungdet.findings.FINDINGS` (`effusion`, `tuberculosis`, ..): 1 or 0.

    Other columns are ignored, and one line says which. Source, licence, how the labels were made and how to cite:
    yours to know and to write down. There is no official split. Labels exported from a text-mined source
    (ChestX-ray14's, say) cannot be told from a reader's here, so a report says nothing of their noise.

    Args:
        root: folder that `path` is relative to; None is the csv file's folder.
        table: the csv file.
        keys: everything that `RadiographDataModule` accepts.
    """

    name = "table"

    def __init__(self, root: str | Path | None = None, *, table: str | Path, **keys) -> None:
        self.table = Path(table).expanduser()
        super().__init__(self.table.parent if root is None else root, **keys)

    def read(self) -> pd.DataFrame:
        """The manifest of the images that are there (module function `read`)."""
        return read(self.table, self.root)

    @cached_property
    def patients_known(self) -> bool:
        """Whether the table has a column `patient_id`."""
        return "patient_id" in _read_csv(self.table)

    def roots(self) -> dict[str, Path]:
        """The same folder for every dataset that the table names."""
        return dict.fromkeys(self.requested["dataset"].unique(), self.root)


def read(csv: Path, root: Path) -> pd.DataFrame:
    """The manifest of the table's images that are there, in the table's order.

    `image_id` is `<dataset>/<file stem>`; where a dataset has one stem in several folders, those images keep their
    folder, `<dataset>/<folder>/<stem>`. Visits are counted over the whole table, so a missing image leaves a gap.

    Raises:
        DatasetError: no such file or folder; no comma-separated table; a needed column is missing; a value that can't
            be read; an image named twice or outside `root`; or no image at all.
    """
    table = _read_csv(csv)
    check_folder(root, "table", f"the images that {csv.name} names")
    _say_ignored(table, csv)
    path = _paths(table, root, csv)
    dataset = _datasets(table, csv)
    name = _names(path, dataset, csv)
    if "patient_id" in table:
        patient = _patients(table, dataset, csv)
    else:
        patient = name
        log.warning(
            "table: %s has no column patient_id, so every image counts as its own patient: images of one patient "
            "on both sides of the split can't be seen",
            csv,
        )
    description = pd.DataFrame(
        {
            "image_id": dataset + "/" + name,
            "dataset": dataset,
            "path": path,
            "patient_id": dataset + "/" + patient,
            "age": _numbers(table, "age", csv, 0, 120),
            "sex": _sex(table, csv),
            "view": _named(table, "view", csv, "; an empty cell means unknown").str.upper(),
        }
    )
    description["visit"] = _visits(table, description["patient_id"], csv)
    labels = pd.DataFrame({column: _label(table, column, csv) for column in (*FINDINGS, "abnormal")})
    contradiction = (labels["abnormal"] == 0) & (labels[list(FINDINGS)] == 1).any(axis=1)
    if contradiction.any():
        row = contradiction.idxmax()
        raise DatasetError(f"{csv}, line {row + 2}: abnormal is 0, but {labels.loc[row, list(FINDINGS)].idxmax()} is 1")
    at_hand = np.array([(root / name).is_file() for name in path], dtype=bool)
    if not at_hand.any():
        raise DatasetError(
            f"{csv}: none of the {len(path)} images is in {root.absolute()}, the first {path.iloc[0]}; "
            "column path is relative to data.root, which is the csv's folder unless set"
        )
    if not at_hand.all():
        log.warning(
            "table: %d of %d images are not there and are left out: %s",
            (~at_hand).sum(),
            len(at_hand),
            first_few(path[~at_hand]),
        )
    return manifest(description[at_hand], labels[at_hand])


def _read_csv(csv: Path) -> pd.DataFrame:
    """The table as text, stripped, empty cells missing; the index is the line's number less 2."""
    if not csv.is_file():
        raise DatasetError(f"data.table={csv}: there is no such file ({csv.absolute()})")
    with csv.open("rb") as file:
        # Excel's own, before the header.
        separator_line = re.match(rb'(?:\xef\xbb\xbf)?"?sep=,"?\s*$', file.readline(99))
    try:
        # Only an empty cell is missing: "NA" in a column of labels is a mistake to be told, not to be guessed at.
        # Cells beyond the header are an error; without index_col=False the first column would become the index.
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            table = pd.read_csv(
                csv,
                dtype="str",
                encoding="utf-8-sig",
                keep_default_na=False,
                skip_blank_lines=False,
                index_col=False,
                skiprows=1 if separator_line else 0,
            )
    except pd.errors.ParserWarning as error:
        raise DatasetError(f"{csv}: lines have more cells than the header; a cell with a comma needs quotes") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DatasetError(f"{csv}: not a comma-separated table in UTF-8 with a header ({error})") from error
    table.index += 1 if separator_line else 0
    table.columns = table.columns.map(plain)
    table = table.apply(lambda column: column.str.strip())
    table = table.where(table != "").dropna(how="all")
    missing = [column for column in REQUIRED if column not in table.columns]
    if missing:
        columns = ", ".join(table.columns)
        separator = next((sign for sign in ";\t|" if sign in columns), None)
        advice = f" The columns seem to be separated by {separator!r}; commas are needed" if separator else ""
        raise DatasetError(f"{csv}: no column {' and no column '.join(missing)}; found {columns}.{advice}")
    if table.empty:
        raise DatasetError(f"{csv}: there is a header and no row")
    return table


def _say_ignored(table: pd.DataFrame, csv: Path) -> None:
    known = (*REQUIRED, *OPTIONAL)
    ignored = []
    for column in table.columns.difference(known, sort=False):
        close = difflib.get_close_matches(re.sub(r"\W+", "_", column.lower()), known, 1)
        ignored.append(column + (f" (is {close[0]} meant?)" if close else ""))
    if ignored:
        log.warning("table: %s has columns that are not known and are ignored: %s", csv, ", ".join(ignored))


def _text(table: pd.DataFrame, column: str) -> pd.Series:
    return table.get(column, pd.Series(np.nan, index=table.index, name=column)).astype("str")


def _needed(table: pd.DataFrame, column: str, csv: Path) -> pd.Series:
    _refuse(table[column].isna(), table[column].fillna(""), csv, "a value is needed on every line")
    return table[column]


def _named(table: pd.DataFrame, column: str, csv: Path, advice: str) -> pd.Series:
    """The cells without what nobody can see in them (`patients.plain`), none of them a word for a name not known."""
    text = _text(table, column)
    names = {name: plain(name) for name in text.dropna().unique()}
    placeholders = {name for name in names if is_placeholder(name)}
    nobody = text.isin(placeholders)
    _refuse(nobody, text, csv, f"{first_few(sorted(placeholders))} on {int(nobody.sum())} line(s) name nobody{advice}")
    return text.map(names).astype("str")


def _patients(table: pd.DataFrame, dataset: pd.Series, csv: Path) -> pd.Series:
    _needed(table, "patient_id", csv)
    advice = (
        " and would make one patient of many; give every unknown patient an id, or drop the column if none is known"
    )
    patient = _named(table, "patient_id", csv, advice)
    rounded = patient.str.fullmatch(r"\d(?:[.,]\d+)?[Ee]\+\d+")
    _refuse(rounded, patient, csv, "rounded by a spreadsheet, many patients became one; export the column as text")
    advice = "a split could part them. Write each patient in one way, or number the patients anew if they are two"
    _refuse_spellings(patient, dataset, csv, advice)
    return patient


def _datasets(table: pd.DataFrame, csv: Path) -> pd.Series:
    dataset = _named(table, "dataset", csv, "; name the source, or leave the cell empty")
    _refuse(dataset.str.contains(r"[/\\\x00-\x1f]"), dataset, csv, "a name without slashes is needed")
    dataset = dataset.fillna("table")
    advice = "their patients would count as different people. Write each dataset in one way"
    _refuse_spellings(dataset, pd.Series("", index=table.index), csv, advice)
    return dataset


def _refuse_spellings(names: pd.Series, within: pd.Series, csv: Path, advice: str) -> None:
    """Raise if names that differ in spelling alone (`patients.folded`) stand in one group."""
    spellings = pd.DataFrame({"name": names, "within": within}).drop_duplicates()
    spellings["folded"] = spellings["name"].map(folded)
    twice = spellings[spellings.duplicated(["within", "folded"], keep=False)]
    if len(twice):
        groups = list(twice.groupby(["within", "folded"], sort=False)["name"])
        (line, name), (second_line, second) = groups[0][1].head(2).items()
        further = f" (and {len(groups) - 1} more such)" if len(groups) > 1 else ""
        raise DatasetError(
            f"{csv}, column {names.name}: {name!r} on line {line + 2} and {second!r} on line {second_line + 2} seem to "
            f"be one and the same{further}; {advice}"
        )


def _numbers(
    table: pd.DataFrame, column: str, csv: Path, lowest: float = -np.inf, highest: float = np.inf
) -> pd.Series:
    text = _text(table, column)
    number = pd.to_numeric(text, errors="coerce").astype("float64")
    limits = "" if np.isinf(highest) else f" from {lowest} to {highest}"
    _refuse(text.notna() & ~number.between(lowest, highest), text, csv, f"a number{limits} or nothing is needed")
    return number


def _label(table: pd.DataFrame, column: str, csv: Path) -> pd.Series:
    text = _text(table, column)
    number = pd.to_numeric(text, errors="coerce").astype("float64")
    _refuse(text.notna() & ~number.isin([0, 1]), text, csv, "a label is 0, 1 or empty (unknown)")
    return number


def _sex(table: pd.DataFrame, csv: Path) -> pd.Series:
    text = _text(table, "sex")
    sex = text.str.lower().map(_SEXES)
    _refuse(text.notna() & sex.isna(), text, csv, "male, female, other, M, F, O or nothing is needed")
    return sex


def _visits(table: pd.DataFrame, patient: pd.Series, csv: Path) -> pd.Series:
    if "visit" not in table:
        return patient.groupby(patient).cumcount()
    visit = _needed(table, "visit", csv)
    order = pd.DataFrame({"patient_id": patient, "visit": _numbers(table, "visit", csv)})
    _refuse(
        order.duplicated(), visit, csv, "the patient has this visit on an earlier line; number the images of a visit"
    )
    return visits_in_order(order, ["visit"])


def _paths(table: pd.DataFrame, root: Path, csv: Path) -> pd.Series:
    """The column `path` with forward slashes and nothing superfluous, all inside the root, as the disk writes it."""
    cells = _needed(table, "path", csv)
    path = cells.str.replace("\\", "/").map(posixpath.normpath)
    outside = path.str.match(r"/|\.\.(?:/|$)|[A-Za-z]:")
    _refuse(outside, cells, csv, "not inside data.root; give paths relative to it")
    path = path.map(lambda name: name if name.isascii() else _on_disk(root, name))
    _refuse(path.duplicated(), cells, csv, "the image stands on an earlier line too")
    return path


def _on_disk(root: Path, name: str) -> str:
    """The name of a file that is there under it, composed letters (ü) being the same as decomposed ones (u and ¨)."""
    composed, decomposed = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    return next((form for form in (name, composed, decomposed) if (root / form).is_file()), composed)


def _names(path: pd.Series, dataset: pd.Series, csv: Path) -> pd.Series:
    """Unique names within each dataset: the stem, or the path without suffix where two images share the stem."""
    whole = path.map(lambda name: unicodedata.normalize("NFC", name)).str.replace(r"\.[^./]*$", "", regex=True)
    stem = whole.str.rsplit("/", n=1).str[-1]
    names = stem.where(~(dataset + "/" + stem).duplicated(keep=False), whole)
    _refuse((dataset + "/" + names).duplicated(), path, csv, "an earlier line differs in the suffix alone; rename one")
    return names


def _refuse(wrong: pd.Series, column: pd.Series, csv: Path, needed: str) -> None:
    """Raise for the first line that is wrong."""
    if wrong.any():
        row = wrong.idxmax()
        raise DatasetError(f"{csv}, line {row + 2}, column {column.name}: {column[row]!r}; {needed}")
