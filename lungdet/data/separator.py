"""Csv files as people save them: cells separated by commas, or as spreadsheets do where numbers have commas."""

import io
import re
from pathlib import Path

import pandas as pd

from lungdet.data.patients import plain

_EXCELS = re.compile(r'"?sep=(.*?)"?\n?')
"""Excel's own line above the header, which names it."""


def read(csv: Path) -> pd.DataFrame:
    """A table of text in UTF-8 with a header, its cells stripped; row `i` of its index stands on line `i` + 2.

    Lines without any text are left out, also those above the header, and columns without a name. A cell that is not
    there is empty.

    Raises:
        ValueError: it is none, a column is there twice, or a line has more cells than the header; the message names
            the line.
    """
    text = _decoded(csv.read_bytes())
    sign, above = _separator(text)
    options = {"dtype": str, "keep_default_na": False, "skip_blank_lines": False}
    try:
        # The header is a line like any other, or pandas would rename what stands in it twice.
        table = pd.read_csv(io.StringIO(text), sep=sign, skiprows=above, header=None, **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = f"{str(error).strip()}; a cell with {sign!r} needs quotes"
        raise ValueError(f"no table with a header, separated by {sign!r} ({reason})") from error
    table = table.fillna("").apply(lambda column: column.str.strip())
    names = table.iloc[0].map(plain)
    if len(repeated := names[names.duplicated() & (names != "")]):
        raise ValueError(f"line {above + 1}: two columns are called {repeated.iloc[0]}; rename or delete one")
    table = table.iloc[1:].set_axis(names.tolist(), axis=1).loc[:, (names != "").to_numpy()]
    table.index += above - 1
    return table[(table != "").any(axis=1)]


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is no text in UTF-8; save the table anew as CSV in UTF-8") from error


def _separator(text: str) -> tuple[str, int]:
    """The sign that separates a table's cells, and how many lines stand above its header.

    It is what the first line names, else a semicolon or tab where the header has one of them and no comma, else a
    comma. That guesses nothing: no column that is read has such a sign in its name.

    Raises:
        ValueError: the first line names something else than one ASCII sign.
    """
    lines = ((number, line) for number, line in enumerate(io.StringIO(text, newline=None)) if line.strip(" ,;\t\n"))
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
