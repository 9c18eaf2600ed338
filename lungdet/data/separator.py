"""What separates the cells of a csv file: a comma, or where a spreadsheet writes numbers with one, a semicolon."""

import re
from pathlib import Path

_EXCELS = re.compile(r'"?sep=(.)"?\s*$')
"""Excel's own line above the header, which names it."""


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
