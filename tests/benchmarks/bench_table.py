"""What ChestX-ray14's whole table takes: a manifest, a split that is checked and hashed, its files found again."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from lungdet.data.serving.series import Series
from lungdet.data.sources.chestxray14_tables import read_table
from lungdet.data.splitting import protocols, splits
from lungdet.data.store import store
from lungdet.data.store.images import Settings


def run(data: Path) -> list[dict]:
    """Measure on `data`/ChestX-ray14's table of 112,120 rows; of the files only names, sizes and times are needed."""
    table = read_table(data / "ChestX-ray14", 2020)
    size = f"{len(table):,} rows, {table['patient_id'].nunique():,} patients"
    manifest = lambda: read_table(data / "ChestX-ray14", 2020)  # noqa: E731
    results = [_measured("the full table to a manifest", manifest, f"{size}, validated")]
    results.append(_measured("the full table split", lambda: _split(table), f"{size}: drawn, checked, hashed"))
    results.append(_measured("series of the full table", lambda: Series(table, 8), f"{size}"))
    with tempfile.TemporaryDirectory() as folder:
        for path in table["path"]:
            file = Path(folder) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        found = lambda: store._fingerprint(store._files(table, {"chestxray14": Path(folder)}), Settings())  # noqa: E731
        results.append(_measured("files of the full table found again", found, f"{size}: names, sizes, times, hashed"))
    return results


def _split(table: pd.DataFrame) -> None:
    split = protocols.random(table, seed=0)
    splits.check(split, table)
    split.describe(table)


def _measured(name: str, work: Callable[[], object], detail: str) -> dict:
    seconds = []
    for _ in range(9):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    low, middle, high = statistics.quantiles(seconds, n=4)
    return {"name": name, "seconds": middle, "low": low, "high": high, "detail": detail}
