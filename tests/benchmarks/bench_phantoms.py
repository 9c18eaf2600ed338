"""Drawing phantoms, 256 pixels, three sources, with masks."""

import os
import statistics
import tempfile
import time
from pathlib import Path

import pandas as pd

from lungdet.data.phantoms.cohort import Knobs
from lungdet.data.phantoms.files import generate

PATIENTS = {"chestxray14": 112, "montgomery": 42, "shenzhen": 70}
"""In the configuration's proportions: about 400 images."""


def run(data: Path) -> list[dict]:
    """Draw three times, one thread a core, other patients each time; `data` is not needed."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, rates = [], []
        for seed in range(3):
            began = time.perf_counter()
            made = generate(Path(folder), Knobs(patients=PATIENTS, size=256, seed=seed))
            seconds.append(time.perf_counter() - began)
            images = len(pd.read_csv(made / "truth.csv"))
            rates.append(images / seconds[-1])
        masks = len(list(made.glob("masks/*/*.png")))
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    detail = (
        f"{statistics.median(rates):.0f} images/s ({min(rates):.0f} to {max(rates):.0f}) on {os.cpu_count()} cores: "
        f"{images} images of {sum(PATIENTS.values())} patients and {masks} masks, as PNG"
    )
    return [{"name": "drawing phantoms", "seconds": middle, "low": low, "high": high, "detail": detail}]
