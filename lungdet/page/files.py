"""Files beside a page: its figures, pictures and tables. Those of an earlier report that this one lacks are deleted.

What others laid into these folders stays.
"""

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path

from lungdet.machine.writing import make_folder, replacing, write_text
from lungdet.page.document import Document, Figure, Pictures, Table, flat, unused
from lungdet.page.markup import plain

_WRITTEN = ".written"
"""Names the files that a report wrote into the folder, so that the next one deletes no file of anybody else's."""
_LONGEST = 100
"""Letters of a section's anchor that name a file."""
_NUMBER = re.compile(r"[-+](\d|\.\d)([\d.,%± \[\]-]|to|no interval)*")


def write_figures(document: Document, folder: Path) -> None:
    """Every figure as `figures/<name>.svg`, with colours of its own for light and dark, every picture as `.png`."""
    style = "<style>svg{color:#1f2328}@media(prefers-color-scheme:dark){svg{color:#e6edf3}}</style>"
    files = {}
    for block in flat([block for section in document.sections for block in section.blocks]):
        if isinstance(block, Figure):
            files[f"{block.name}.svg"] = re.sub(r"(<svg[^>]*>)", rf"\1{style}", block.element, count=1).encode()
        elif isinstance(block, Pictures):
            files |= {f"{picture.name}.{picture.format}": picture.data for picture in block.pictures}
    _replace(folder / "figures", files)


def write_tables(document: Document, folder: Path) -> None:
    """Every table as `tables/<anchor of its section>.csv`, a section's second as `-2`, with cells as they are read."""
    files: dict[str, bytes] = {}
    for section, anchor in zip(document.sections, document.anchors, strict=True):
        tables = [block for block in flat(section.blocks) if isinstance(block, Table)]
        for number, table in enumerate(tables, start=1):
            text = io.StringIO()
            rows = [[_unformulated(plain(cell)) for cell in row] for row in (table.columns, *table.rows)]
            csv.writer(text, lineterminator="\n").writerows(rows)
            name = anchor[:_LONGEST] if number == 1 else f"{anchor[:_LONGEST]}-{number}"
            files[unused(name, files)] = text.getvalue().encode()
    _replace(folder / "tables", {f"{name}.csv": data for name, data in files.items()})


def _unformulated(cell: str) -> str:
    """The cell, after an apostrophe where a spreadsheet would take its text for a formula; numbers are left alone."""
    return f"'{cell}" if cell.lstrip().startswith(("=", "+", "-", "@")) and not _NUMBER.fullmatch(cell) else cell


def _replace(folder: Path, files: Mapping[str, bytes]) -> None:
    """These files in place of those that an earlier report wrote."""
    record = folder / _WRITTEN
    earlier = record.read_text(encoding="utf-8").splitlines() if record.is_file() else []
    if not files and not earlier:
        return
    make_folder(folder)
    for name in {Path(name).name for name in earlier if name} - files.keys():
        (folder / name).unlink(missing_ok=True)
    write_text(record, "".join(f"{name}\n" for name in files))
    for name, data in files.items():
        with replacing(folder / name) as file:
            file.write(data)
