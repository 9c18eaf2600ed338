"""Csv files as people save them: cells separated by commas, or as spreadsheets do where numbers have commas."""

import re
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

_EXCELS = re.compile(r'"?sep=(.)"?\s*$')
"""Excel's own line above the header, which names it."""


def read(csv: Path, **options: Any) -> pd.DataFrame:
    """A table of text in UTF-8 with a header; row `i` of its index stands on line `i` + 2 of the file.

    Args:
        csv: the file.
        options: further ones of `pandas.read_csv`.

    Raises:
        ValueError: it is none, or a line has more cells than the header.
    """
    sign, above = separator(csv)
    options |= {"dtype": str, "encoding": "utf-8-sig", "sep": sign, "skiprows": above}
    try:
        # Without index_col=False the first column would become the index, with it what is too much would go.
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            table = pd.read_csv(csv, index_col=False, **options)
    except pd.errors.ParserWarning as error:
        raise ValueError(f"lines have more cells than the header; a cell with {sign!r} needs quotes") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"no table in UTF-8 with a header, separated by {sign!r} ({error})") from error
    table.index += above
    return table


def separator(csv: Path) -> tuple[str, int]:
    """The sign that separates a table's cells, and how many lines stand above its header.

    It is what the first line names, else a semicolon or tab where the header has one of them and no comma, else a
    comma. That guesses nothing: no column that is read has such a sign in its name.
    """
    with csv.open(encoding="utf-8-sig", errors="replace") as lines:
        first = lines.readline()
    if named := _EXCELS.match(first):
        return named[1], 1
    signs = [sign for sign in ";\t" if sign in first]
    return (signs[0] if len(signs) == 1 and "," not in first else ","), 0
