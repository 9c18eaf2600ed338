"""Csv files as people save them: cells separated by commas, or as spreadsheets do where numbers have commas."""

import re
import warnings
from pathlib import Path

import pandas as pd

_EXCELS = re.compile(r'"?sep=(.*?)"?\n?')
"""Excel's own line above the header, which names it."""


def read(csv: Path) -> pd.DataFrame:
    """A table of text in UTF-8 with a header, its cells stripped; row `i` of its index stands on line `i` + 2.

    Lines without any text are left out, also those above the header. A cell that is not there is empty.

    Raises:
        ValueError: it is none, or a line has more cells than the header; the message names the line.
    """
    sign, above = separator(csv)
    text = {"dtype": str, "encoding": "utf-8-sig", "keep_default_na": False, "skip_blank_lines": False}
    try:
        # Without index_col=False the first column would become the index, with it what is too much would go.
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            table = pd.read_csv(csv, sep=sign, skiprows=above, index_col=False, **text)
    except pd.errors.ParserWarning as error:
        where = f"lines below line {above + 1} have more cells than the header"
        raise ValueError(f"{where}; a cell with {sign!r} needs quotes") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        reason = str(error).strip()
        raise ValueError(f"no table in UTF-8 with a header, separated by {sign!r} ({reason})") from error
    table.index += above
    table = table.fillna("").apply(lambda column: column.str.strip())
    return table[(table != "").any(axis=1)]


def separator(csv: Path) -> tuple[str, int]:
    """The sign that separates a table's cells, and how many lines stand above its header.

    It is what the first line names, else a semicolon or tab where the header has one of them and no comma, else a
    comma. That guesses nothing: no column that is read has such a sign in its name.

    Raises:
        ValueError: the first line names something else than one ASCII sign.
    """
    with csv.open(encoding="utf-8-sig", errors="replace") as file:
        lines = ((number, line) for number, line in enumerate(file) if line.strip(" ,;\t\n"))
        above, first = next(lines, (0, ""))
        if named := _EXCELS.fullmatch(first):
            sign = named[1]
            if len(sign) != 1 or not sign.isascii():
                raise ValueError(
                    f"line {above + 1}: sep={sign}: one ASCII sign can separate cells; save the table with ; between "
                    "them, and delete the line or write sep=;"
                )
            return sign, next(lines, (above + 1, ""))[0]
    signs = [sign for sign in ";\t" if sign in first]
    return (signs[0] if len(signs) == 1 and "," not in first else ","), above
