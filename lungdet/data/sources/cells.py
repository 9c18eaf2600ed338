"""The cells of a user's table: text becomes values, and what is wrong is named with file, line and column."""

import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lungdet.configuration.nearest import hint, nearest
from lungdet.data import separator
from lungdet.data.patients import folded, is_placeholder, plain
from lungdet.errors import DatasetError, first_few
from lungdet.findings import FINDINGS

log = logging.getLogger(__name__)

Word = str | int | float | bool
"""Of labels: 3 and True are words, too, which a command line gives as what they look like."""

REQUIRED: tuple[str, ...] = ("path", "abnormal")
OPTIONAL: tuple[str, ...] = ("patient_id", "visit", "age", "sex", "view", "dataset", *FINDINGS)
USUAL = {
    "path": ("image", "image_path", "file", "filename", "file_name", "image_id"),
    "abnormal": ("label", "target", "class", "diagnosis", "finding"),
}
"""What other people's tables call these columns."""


def read_csv(csv: Path, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The table as text, stripped, empty cells missing; the index is the line's number less 2.

    Args:
        csv: the file.
        columns: what the file calls columns that are known here by another name.

    Raises:
        DatasetError: no such file, no table, a needed column that is missing, or no row.
    """
    if not csv.is_file():
        raise DatasetError(f"data.table={csv}: there is no such file ({csv.absolute()})")
    try:
        # Only an empty cell is missing: "NA" in a column of labels is a mistake to be told, not to be guessed at.
        table = separator.read(csv)
    except ValueError as error:
        raise DatasetError(f"{csv}: {error}") from error
    table = _renamed(table.where(table != ""), columns or {}, csv)
    missing = [column for column in REQUIRED if column not in table.columns]
    if missing:
        columns = ", ".join(table.columns)
        theirs = [_meant(column, [*table.columns]) for column in missing]
        mapping = ",".join(f"{own}:{other}" for own, other in zip(missing, theirs, strict=True))
        advice = f" If they have other names there: 'data.columns={{{mapping}}}'"
        if other := next((other for other in ";|" if other in columns), None):
            advice = f" The columns seem to be separated by {other!r}: add the line sep={other} above the header"
        raise DatasetError(f"{csv}: no column {' and no column '.join(missing)}; found {columns}.{advice}")
    if table.empty:
        raise DatasetError(f"{csv}: there is a header and no row")
    return table


def tell_ignored(table: pd.DataFrame, csv: Path) -> None:
    """One line on the columns that nothing is read from, with the name that may be meant."""
    known = (*REQUIRED, *OPTIONAL)
    ignored = []
    for column in table.columns.difference(known, sort=False):
        if column == "split":
            ignored.append("split (data.split=file takes it)")
            continue
        close = difflib.get_close_matches(re.sub(r"\W+", "_", column.lower()), known, 1)
        ignored.append(column + (f" (is {close[0]} meant?)" if close else ""))
    if ignored:
        log.warning("table: %s has columns that are not known and are ignored: %s", csv, ", ".join(ignored))


def text(table: pd.DataFrame, column: str) -> pd.Series:
    """A column's cells; all missing where there is no such column."""
    return table.get(column, pd.Series(np.nan, index=table.index, name=column)).astype("str")


def needed(table: pd.DataFrame, column: str, csv: Path) -> pd.Series:
    """A column's cells, none of them missing."""
    refuse(table[column].isna(), table[column].fillna(""), csv, "a value is needed on every line")
    return table[column]


def named(table: pd.DataFrame, column: str, csv: Path, advice: str) -> pd.Series:
    """The cells without what nobody can see in them (`patients.plain`), none of them a word for a name not known."""
    cells = text(table, column)
    names = {name: plain(name) for name in cells.dropna().unique()}
    placeholders = {name for name in names if is_placeholder(name)}
    anonymous = cells.isin(placeholders)
    refuse(
        anonymous,
        cells,
        csv,
        f"{first_few(sorted(placeholders))} on {int(anonymous.sum())} line(s) name nobody{advice}",
    )
    return cells.map(names).astype("str")


def numbers(table: pd.DataFrame, column: str, csv: Path, lowest: float = -np.inf, highest: float = np.inf) -> pd.Series:
    """A column's numbers between two limits, NaN where a cell is empty."""
    cells = text(table, column)
    number = pd.to_numeric(cells, errors="coerce").astype("float64")
    limits = "" if np.isinf(highest) else f" from {lowest} to {highest}"
    wrong = ~number.between(lowest, highest) | np.isinf(number)
    refuse(cells.notna() & wrong, cells, csv, f"a number{limits} or nothing is needed")
    return number


def label(table: pd.DataFrame, column: str, csv: Path, abnormal: Sequence[Word] = ()) -> pd.Series:
    """1, 0 or NaN: from such cells or, of the column `abnormal`, from words of which these are 1 and all others 0."""
    cells = text(table, column)
    if column == "abnormal" and abnormal:
        words, folds = cells.str.casefold(), {str(word).casefold() for word in abnormal}
        if absent := sorted(folds - {*words.dropna()}):
            counts = ", ".join(f"{word!r} ({count})" for word, count in cells.value_counts().head(10).items())
            raise DatasetError(f"data.abnormal: {', '.join(absent)} is in no cell of {csv}; there are {counts}")
        for value, name in ((True, "abnormal"), (False, "normal")):
            counts = cells[words.notna() & (words.isin(folds) == value)].value_counts()
            log.info(
                "table: %s are %s", first_few([f"{count} {w!r}" for w, count in counts.items()], 8) or "none", name
            )
        return words.isin(folds).astype("float64").where(words.notna())
    number = pd.to_numeric(cells, errors="coerce").astype("float64")
    wrong = cells.notna() & ~number.isin([0, 1])
    words = first_few(sorted({*cells[wrong]}), 3)
    advice = f"; labels in words: 'data.abnormal=[{words}]' names those that are" if column == "abnormal" else ""
    refuse(wrong, cells, csv, f"a label is 0, 1 or empty (unknown){advice}")
    return number


def refuse_spellings(names: pd.Series, within: pd.Series, csv: Path, advice: str) -> None:
    """Raise if names that differ in spelling alone (`patients.folded`) stand in one group."""
    spellings = pd.DataFrame({"name": names, "within": within}).drop_duplicates()
    spellings["folded"] = spellings["name"].map(folded)
    variants = spellings[spellings.duplicated(["within", "folded"], keep=False)]
    if len(variants):
        groups = list(variants.groupby(["within", "folded"], sort=False)["name"])
        (line, name), (second_line, second) = groups[0][1].head(2).items()
        further = f" (and {len(groups) - 1} more such)" if len(groups) > 1 else ""
        raise DatasetError(
            f"{csv}, column {names.name}: {name!r} on line {line + 2} and {second!r} on line {second_line + 2} seem to "
            f"be one and the same{further}; {advice}"
        )


def refuse(wrong: pd.Series, column: pd.Series, csv: Path, need: str) -> None:
    """Raise for the first line that is wrong."""
    if wrong.any():
        row = wrong.idxmax()
        raise DatasetError(f"{csv}, line {row + 2}, column {column.name}: {column[row]!r}; {need}")


def _meant(column: str, names: Sequence[str]) -> str:
    """The name of a table's that a column of ours seems to have there."""
    usual = [name for name in names if name.lower() in USUAL[column]]
    return next(iter([*usual, *nearest(column, names)]), "THEIRS")


def _renamed(table: pd.DataFrame, columns: Mapping[str, str], csv: Path) -> pd.DataFrame:
    known = (*REQUIRED, *OPTIONAL, "split")
    for own, theirs in columns.items():
        if own not in known:
            raise DatasetError(f"data.columns.{own}: known columns are {', '.join(known)}")
        if theirs not in table:
            raise DatasetError(f"data.columns.{own}={theirs}: {csv} has no such column{hint(theirs, table.columns)}")
    superseded = [own for own in columns if own in table and own not in columns.values()]
    return table.drop(columns=superseded).rename(columns={theirs: own for own, theirs in columns.items()})
