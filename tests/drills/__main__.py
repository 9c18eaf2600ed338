"""Run the drills, print their tables and keep drills.json.

python -m tests.drills [studies]      1,000 studies by default: half an hour on two cores
"""

import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.drills import comparison, coverage

DRILLS = (coverage, comparison)


def main() -> None:
    """Every drill, its studies shared out over the cores."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    found = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for drill in DRILLS:
            for design in drill.designs():
                rows = list(pool.map(drill.study, [design] * studies, range(studies), chunksize=10))
                found.append({"drill": drill.__name__.split(".")[-1], "studies": studies, **drill.found(design, rows)})
                print(json.dumps(found[-1]), flush=True)
    Path("drills.json").write_text(json.dumps({"date": date.today().isoformat(), "results": found}, indent=1) + "\n")
    for drill in DRILLS:
        name = drill.__name__.split(".")[-1]
        rows = [one for one in found if one["drill"] == name]
        table = Table(title=drill.__doc__.splitlines()[0])
        for column in rows[0]:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*[f"{value:.1f}" if isinstance(value, float) else str(value) for value in row.values()])
        Console(width=None if sys.stdout.isatty() else 200).print(table)


if __name__ == "__main__":
    main()
