"""A user's own radiographs: a csv file that names image files and says what is known about each."""

import logging
import os
import posixpath
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lungdet.data.datamodule import RadiographDataModule
from lungdet.data.dicom.pseudonyms import keyed, read_key
from lungdet.data.dicom.tags import contradictions, names_patients, survey
from lungdet.data.manifest import manifest, visits_in_order
from lungdet.data.sources.cells import (
    Word,
    label,
    named,
    needed,
    numbers,
    read_csv,
    refuse,
    refuse_spellings,
    tell_ignored,
    text,
)
from lungdet.data.splitting.splits import SplitError
from lungdet.data.store.images import stem
from lungdet.errors import DatasetError, check_folder, first_few
from lungdet.findings import FINDINGS

log = logging.getLogger(__name__)

_SEXES = {"m": "M", "male": "M", "f": "F", "female": "F", "o": "O", "other": "O"}


class TableDataModule(RadiographDataModule):
    """A user's own images, `data=table data.table=my.csv`.

    The file is a csv, UTF-8, one row an image, with a header of these names; an empty cell means unknown. Commas
    separate cells, or semicolons or tabs where the header has no comma.

    - `path` (needed): the image file, relative to `root`, or absolute and within it. PNG, JPEG, TIFF, BMP or DICOM.
    - `abnormal` (needed): 1 or 0; or words, with `data.abnormal=[pneumonia,tb]` for those that are abnormal, all
      others being normal.
    - `patient_id`: whose image it is. **Without it every image counts as its own patient, and a patient on both
      sides of the split can't be seen.** Refused: one patient written in two ways (`1` and `001`, `A1` and `a1`), and
      what names nobody (`nan`, `unknown`, `-`).
    - `visit`: any numbers that grow with time within a patient; without it a patient's rows are in order of time.
    - `age` in years, `sex` (male, female, other, or M, F, O), `view` (PA, AP, ..).
    - `dataset`: the name of the source, where there are several; `table` without it. A patient is known by `dataset`
      and `patient_id`: in two tables of one name, patient 7 is one person.
    - `split`: train, val or test, which `data.split=file` takes where no `data.split_file` is given.
    - any of the findings of `lungdet.findings.FINDINGS` (`effusion`, `tuberculosis`, ..): 1 or 0.

    Of DICOM files `patient_id`, `visit`, `age`, `sex` and `view` are read from tags where the table has no such column;
    where it has, the table is taken, and one line counts the contradictions.

    Where the file has other names for them: `data.columns={path: image, abnormal: label}`, these names first.

    Other columns are ignored, and one line says which. Source, licence, how the labels were made and how to cite:
    yours to know and to write down. There is no official split. Labels exported from a text-mined source
    (ChestX-ray14's, say) cannot be told from a reader's here, so a report says nothing of their noise.

    Args:
        root: folder that `path` is relative to; None is the csv file's folder or, of absolute paths, what they share.
        table: the csv file.
        columns: what the file calls columns, by the name that they have here.
        abnormal: words of the column `abnormal` that mean 1; none where it holds 1 and 0.
        pseudonymize: a file with the key of the pseudonyms that patients go by, the table's and those of DICOM tags.
            None leaves the table's as they are, and calls a patient of DICOM files after the first of their images.
        keys: everything that `RadiographDataModule` accepts.
    """

    name = "table"

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        table: str | Path,
        columns: Mapping[str, str] | None = None,
        abnormal: Sequence[Word] = (),
        pseudonymize: str | Path | None = None,
        **keys,
    ) -> None:
        self.key = read_key(pseudonymize)
        self.table, self.columns, self.abnormal = Path(table).expanduser(), columns, abnormal
        super().__init__(_root(self.table, columns) if root is None else root, **keys)

    def read(self) -> pd.DataFrame:
        """The manifest of the table's images that are there, in the table's order.

        `image_id` is `<dataset>/<file stem>`; where a dataset has one stem in several folders, those images keep their
        folder, `<dataset>/<folder>/<stem>`. Visits are counted over the whole table, so a missing image leaves a gap.

        Raises:
            DatasetError: no such file or folder; no table; a needed column is missing; a value that can't
                be read; an image named twice or outside `root`; or no image at all.
        """
        csv, root = self.table, self.root
        table = read_csv(csv, self.columns)
        check_folder(root, "table", f"the images that {csv.name} names")
        tell_ignored(table, csv)
        path, dataset, name = _identity(table, root, csv)
        images = pd.DataFrame({"image_id": dataset + "/" + name, "dataset": dataset})
        tags = survey([root / place for place in path], images, self.key)
        self.patients_known = "patient_id" in table or names_patients(tags)
        patient = _patients(table, images, tags, csv, self.key)
        description = images.assign(
            path=path,
            patient_id=patient,
            age=numbers(table, "age", csv, 0, 120),
            sex=_sex(table, csv),
            view=named(table, "view", csv, "; an empty cell means unknown").str.upper(),
        )
        if tags is not None:
            own = description[[column for column in ("patient_id", "age", "sex", "view") if column in table]]
            if kinds := contradictions(own, tags):
                log.warning(
                    "table: %s and the DICOM tags contradict each other, the table is taken: %s", csv, ", ".join(kinds)
                )
            absent = [column for column in ("age", "sex", "view") if column not in table]
            description = description.assign(**tags[absent])
        description["visit"] = _visits(table, patient, None if tags is None else tags["time"], csv)
        labels = _labels(table, csv, self.abnormal)
        present = _present(path, root, csv)
        return manifest(description[present], labels[present])

    def own_split(self) -> pd.DataFrame:
        """The table's column `split`, by image.

        Raises:
            SplitError: it has none.
        """
        table = read_csv(self.table, self.columns)
        if "split" not in table:
            raise SplitError(f"data.split=file: set data.split_file=FILE, or give {self.table} a column split")
        _, dataset, name = _identity(table, self.root, self.table)
        return pd.DataFrame({"image_id": dataset + "/" + name, "split": table["split"]}).dropna()

    def roots(self) -> dict[str, Path]:
        """The same folder for every dataset that the table names."""
        return dict.fromkeys(self.requested["dataset"].unique(), self.root)


def _root(csv: Path, columns: Mapping[str, str] | None) -> Path:
    """The folder that a table's paths are in: its own, or what absolute ones share."""
    if not csv.is_file():  # `read` says so
        return csv.parent
    paths = [Path(path).expanduser() for path in read_csv(csv, columns)["path"].dropna()]
    absolute = [str(path.parent) for path in paths if path.is_absolute()]
    return Path(posixpath.commonpath(absolute)) if paths and len(absolute) == len(paths) else csv.parent


def _identity(table: pd.DataFrame, root: Path, csv: Path) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Of each image its path, its dataset and its name in that."""
    path, dataset = _paths(table, root, csv), _datasets(table, csv)
    return path, dataset, _names(path, dataset, csv)


def _patients(
    table: pd.DataFrame, images: pd.DataFrame, tags: pd.DataFrame | None, csv: Path, key: bytes | None
) -> pd.Series:
    """By the column, else by the tags, else each image its own."""
    if "patient_id" in table:
        own = _own_patients(table, images["dataset"], csv)
        return images["dataset"] + "/" + (own if key is None else own.map(lambda patient: keyed(patient, key)))
    return images["image_id"] if tags is None else tags["patient_id"].fillna(images["image_id"])


def _own_patients(table: pd.DataFrame, dataset: pd.Series, csv: Path) -> pd.Series:
    needed(table, "patient_id", csv)
    advice = (
        " and would make one patient of many; give every unknown patient an id, or drop the column if none is known"
    )
    patient = named(table, "patient_id", csv, advice)
    rounded = patient.str.fullmatch(r"\d(?:[.,]\d+)?[Ee]\+\d+")
    refuse(rounded, patient, csv, "rounded by a spreadsheet, many patients became one; export the column as text")
    advice = "a split could part them. Write each patient in one way, or number the patients anew if they are two"
    refuse_spellings(patient, dataset, csv, advice)
    return patient


def _datasets(table: pd.DataFrame, csv: Path) -> pd.Series:
    dataset = named(table, "dataset", csv, "; name the source, or leave the cell empty")
    refuse(dataset.str.contains(r"[/\\\x00-\x1f]"), dataset, csv, "a name without slashes is needed")
    dataset = dataset.fillna("table")
    advice = "their patients would count as different people. Write each dataset in one way"
    refuse_spellings(dataset, pd.Series("", index=table.index), csv, advice)
    return dataset


def _sex(table: pd.DataFrame, csv: Path) -> pd.Series:
    cells = text(table, "sex")
    sex = cells.str.lower().map(_SEXES)
    refuse(cells.notna() & sex.isna(), cells, csv, "male, female, other, M, F, O or nothing is needed")
    return sex


def _visits(table: pd.DataFrame, patient: pd.Series, time: pd.Series | None, csv: Path) -> pd.Series:
    """By the column, else by the time that tags tell, else in the order of the rows."""
    if "visit" not in table:
        order = pd.DataFrame({"patient_id": patient, "time": 0.0 if time is None else time})
        return visits_in_order(order, ["time"])
    visit = needed(table, "visit", csv)
    order = pd.DataFrame({"patient_id": patient, "visit": numbers(table, "visit", csv)})
    refuse(
        order.duplicated(), visit, csv, "the patient has this visit on an earlier line; number the images of a visit"
    )
    return visits_in_order(order, ["visit"])


def _labels(table: pd.DataFrame, csv: Path, abnormal: Sequence[Word]) -> pd.DataFrame:
    """A column a finding, and `abnormal`, which is not 0 where a finding is 1."""
    labels = pd.DataFrame({column: label(table, column, csv, abnormal) for column in (*FINDINGS, "abnormal")})
    contradiction = (labels["abnormal"] == 0) & (labels[list(FINDINGS)] == 1).any(axis=1)
    if contradiction.any():
        row = contradiction.idxmax()
        raise DatasetError(f"{csv}, line {row + 2}: abnormal is 0, but {labels.loc[row, list(FINDINGS)].idxmax()} is 1")
    return labels


def _present(path: pd.Series, root: Path, csv: Path) -> np.ndarray:
    """Which images are there (N,) bool."""
    present = np.array([os.path.isfile(root / name) for name in path], dtype=bool)
    if not present.any():
        raise DatasetError(
            f"{csv}: none of the {len(path)} images is in {root.absolute()}, the first {path.iloc[0]}; "
            "column path is relative to data.root, which is the csv's folder unless set"
        )
    if not present.all():
        count, missing = len(present), path[~present]
        log.warning(
            "table: %d of %d images are not there and are left out: %s", len(missing), count, first_few(missing)
        )
    return present


def _paths(table: pd.DataFrame, root: Path, csv: Path) -> pd.Series:
    """The column `path` with forward slashes and nothing superfluous, all inside the root, as the disk writes it."""
    cells = needed(table, "path", csv)
    path = cells.str.replace("\\", "/").map(posixpath.normpath).str.removeprefix(f"{root.absolute().as_posix()}/")
    outside = path.str.match(r"/|\.\.(?:/|$)|[A-Za-z]:")
    refuse(outside, cells, csv, f"not inside data.root, {root}; give paths relative to it, or another root")
    path = path.map(lambda name: name if name.isascii() else _on_disk(root, name))
    refuse(path.duplicated(), cells, csv, "the image stands on an earlier line too")
    return path


def _on_disk(root: Path, name: str) -> str:
    """The name of a file that is there under it, composed letters (ü) being the same as decomposed ones (u and ¨)."""
    composed, decomposed = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    return next((form for form in (name, composed, decomposed) if os.path.isfile(root / form)), composed)


def _names(path: pd.Series, dataset: pd.Series, csv: Path) -> pd.Series:
    """Unique names within each dataset: the stem, or the path without suffix where two images share the stem."""
    whole = path.map(lambda name: stem(unicodedata.normalize("NFC", name)))
    last = whole.str.rsplit("/", n=1).str[-1]
    names = last.where(~(dataset + "/" + last).duplicated(keep=False), whole)
    refuse((dataset + "/" + names).duplicated(), path, csv, "an earlier line differs in the suffix alone; rename one")
    return names
