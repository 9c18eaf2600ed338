"""How long ChestX-ray14's whole table takes to become a manifest."""

import statistics
import time
from pathlib import Path

from lungdet.data import chestxray14


def run(data: Path) -> list[dict]:
    """Measure on `data`/ChestX-ray14's table of 112,120 rows."""
    seconds = []
    for _ in range(9):
        began = time.perf_counter()
        table = chestxray14.read_table(data / "ChestX-ray14", 2020)
        seconds.append(time.perf_counter() - began)
    low, middle, high = statistics.quantiles(seconds, n=4)
    return [
        {
            "name": "the full table to a manifest",
            "seconds": middle,
            "low": low,
            "high": high,
            "detail": f"{len(table):,} rows, {table['patient_id'].nunique():,} patients, validated",
        }
    ]
