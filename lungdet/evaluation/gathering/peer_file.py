"""Files of other people's predictions: which column names the images, which tells what, and no value but a number.

A row an image. Columns by label, the first kind that is there being taken: `logit_<label>` (log-odds),
`probability_<label>`, `<label>` (a probability), `decision_<label>` (0 or 1); of `abnormal` also `logit`, `probability`
and `decision`. Findings are spelt as ChestX-ray14 or a manifest spells them. Other columns are not read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from lungdet.data import separator
from lungdet.errors import InputError, first_few
from lungdet.evaluation.statistics.metrics import log_odds
from lungdet.findings import finding_of

IMAGES = ("image_id", "image", "image_index", "image_name", "image_path", "path", "file", "file_name", "filename")
"""What a column of image names may be called, in any case, spaces for underscores; the first that is there is taken."""
KINDS = ("logit", "probability", "", "decision")
"""What may stand before a label, the first that is there being taken; nothing stands before a probability."""
FORMATS = (".csv", ".parquet")


class Column(NamedTuple):
    """Of a label the log-odds (N,), the column they come from, and which probabilities (N,) were exactly 0 or 1."""

    logit: np.ndarray
    name: str
    certain: np.ndarray


@dataclass(frozen=True)
class PeerFile:
    """A file that has been read: where it lies, what each row's image is called, and the rows as they are.

    The rows' index is their place in the file.
    """

    path: Path
    images: pd.Series
    rows: pd.DataFrame

    def column(self, label: str) -> Column | None:
        """What the file says of a label; None where it says nothing.

        Raises:
            InputError: two columns say it, or a value is no number, or not one of its kind.
        """
        of_kind: dict[str, list[str]] = {}
        for name in self.rows.columns:
            kind, of = _meaning(str(name))
            if of == label:
                of_kind.setdefault(kind, []).append(name)
        names = next((of_kind[kind] for kind in KINDS if kind in of_kind), None)
        if names is None:
            return None
        if len(names) > 1:
            raise InputError(f"{self.path}: columns {' and '.join(names)} both say {label}; leave one of them out")
        kind, values = _meaning(names[0])[0], self._numbers(names[0])
        if kind == "logit":
            self._require(np.isfinite(values), names[0], "finite log-odds are needed; give probabilities instead")
            return Column(values, names[0], np.zeros(len(values), bool))
        certain = (values == 0) | (values == 1)
        if kind == "decision":
            self._require(certain, names[0], "a decision is 0 or 1")
        percent = "; are these per cent? divide them by 100" if 1 < np.max(values, initial=0) <= 100 else ""
        needed = f"a probability from 0 to 1 is needed{percent}"
        self._require((values >= 0) & (values <= 1), names[0], needed)
        return Column(log_odds(values), names[0], certain)

    def says(self, label: str) -> bool:
        """Whether a column is of this label, whatever stands in it."""
        return any(_meaning(str(name))[1] == label for name in self.rows.columns)

    def of(self, places: np.ndarray) -> "PeerFile":
        """These of its rows."""
        return PeerFile(self.path, self.images.iloc[places], self.rows.iloc[places])

    def row(self, number: int) -> str:
        """A row as messages call it: the line of a csv file, whose first names the columns."""
        place = self.rows.index[number]
        return f"line {place + 2}" if self.path.suffix.lower() == ".csv" else f"row {place + 1}"

    def _numbers(self, name: str) -> np.ndarray:
        """A column as float64, each value as Python reads it, to the last bit."""
        values = self.rows[name]
        if is_numeric_dtype(values) and not is_bool_dtype(values):
            numbers = values.to_numpy(np.float64, na_value=np.nan)
        else:
            of_value = [_number(value) for value in values]
            for place, number in enumerate(of_value):
                if number is None:
                    text = str(values.iloc[place])
                    comma = "; decimals are written with a point" if _number(text.replace(",", ".")) is not None else ""
                    raise InputError(f"{self._at(place, name)}: {text!r} is no number{comma}")
            numbers = np.array(of_value)
        self._require(~np.isnan(numbers), name, "a number is needed for every image")
        return numbers

    def _require(self, right: np.ndarray, name: str, needed: str) -> None:
        if not right.all():
            place = int(np.argmin(right))
            value = self.rows[name].iloc[place]
            text = "nothing stands there" if pd.isna(value) or value == "" else value
            count = int((~right).sum())
            more = f" (the first of {count:,} such values)" if count > 1 else ""
            raise InputError(f"{self._at(place, name)}: {text}{more}; {needed}")

    def _at(self, place: int, name: str) -> str:
        return f"{self.path}, {self.row(place)} (image {self.images.iloc[place]}), column {name}"


def read(path: Path) -> PeerFile:
    """A .csv or .parquet file with a column of image names.

    Raises:
        InputError: it is not there, of another format, damaged or empty, or no column names the images.
    """
    if not path.is_file():
        raise InputError(f"predictions={path}: there is no such file")
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"predictions={path}: a {' or '.join(FORMATS)} file is needed")
    try:
        # A csv file as text: `00001` is an image's name, and messages have values as written.
        csv = path.suffix.lower() == ".csv"
        rows = separator.read(path) if csv else pd.read_parquet(path).reset_index(drop=True)
    except (OSError, ValueError, UnicodeError) as error:  # pandas' and pyarrow's own are of these
        raise InputError(f"predictions={path} cannot be read: {error}") from error
    name = _of_images(rows.columns)
    if name is None:
        names = [str(column) for column in rows.columns]
        hint = "; write `sep=|` above them" if len(names) == 1 and "|" in names[0] else ""
        raise InputError(
            f"predictions={path}: no column names the images ({', '.join(IMAGES)}); there are "
            f"{first_few(names, 20)}{hint}"
        )
    if rows.empty:
        raise InputError(f"predictions={path}: no row in it")
    images = rows[name]
    unnamed = images.isna() | (images.astype(str).str.strip() == "")
    if unnamed.any():
        place = int(np.argmax(unnamed))
        file = PeerFile(path, images, rows)
        raise InputError(f"{path}, {file.row(place)}, column {name}: no image is named")
    return PeerFile(path, images.astype(str), rows)


def _of_images(columns: pd.Index) -> str | None:
    plain: Mapping[str, str] = {str(name).strip().lower().replace(" ", "_"): name for name in reversed([*columns])}
    return next((plain[name] for name in IMAGES if name in plain), None)


def _meaning(column: str) -> tuple[str, str | None]:
    """The kind of numbers in a column, of `KINDS`, and the label that they are of; None of another column."""
    kind, _, name = column.strip().partition("_")
    if kind.lower() not in KINDS:
        kind, name = "", column
    if not name:
        return kind.lower(), "abnormal" if kind else None
    return kind.lower(), "abnormal" if name.strip().lower() == "abnormal" else finding_of(name)


def _number(value: object) -> float | None:
    """NaN where nothing stands."""
    try:
        return None if isinstance(value, bool) else float("nan") if value in ("", None) else float(value)
    except (TypeError, ValueError):
        return None
