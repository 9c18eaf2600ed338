"""Cases of a run that a file of it is checked on, as the file takes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lungdet.data.serving.loading import Draws, Radiographs
from lungdet.data.store.store import reopen
from lungdet.inference.model import Model
from lungdet.runs.predictions import check

NOISE = 24
"""Cases of noise, of which each patient has as many images as a case may have."""


@dataclass(frozen=True)
class Sample:
    """Cases of one part of a run, prepared as the run had them, or of noise.

    Attributes:
        radiographs: what fetches a case with its patient's earlier images.
        rows: which of them (N,).
        manifest: what the rows are of.
        table: the run's own predictions of them, N rows, see `lungdet.runs.predictions`; None of noise.
    """

    radiographs: Radiographs
    rows: np.ndarray
    manifest: pd.DataFrame
    table: pd.DataFrame | None

    def batches(self, inputs: Sequence[str], size: int) -> Iterator[dict[str, np.ndarray]]:
        """What a file takes, so many cases at a time: of `image`, `length` and `when` those that it has."""
        for start in range(0, len(self.rows), size):
            batch = self.radiographs[Draws(self.rows[start : start + size])]
            yield {name: batch[name] for name in inputs}

    def head(self, cases: int) -> "Sample":
        """The first so many."""
        return replace(self, rows=self.rows[:cases])


def sample(model: Model, part: str, most: int) -> Sample:
    """Cases of `val` or `test` of the first run, drawn where there are more than `most`, always the same.

    Raises:
        StoreError: the run's prepared images are gone.
        RunError: its predictions are.
    """
    run = model.runs[0]
    store = reopen(run.data["store"], run.data["fingerprint"])
    table = check(run.predictions(part), model.labels, f"run {run.folder}, {part} predictions")
    if len(table) > most:
        table = table.sample(most, random_state=0).sort_index().reset_index(drop=True)
    rows = pd.Index(store.manifest["image_id"]).get_indexer(table["image_id"])
    radiographs = Radiographs(store.folder / "images.npy", store.manifest, model.labels, model.visits)
    return Sample(radiographs, rows, store.manifest, table)


def noise(model: Model) -> Sample:
    """Cases of no run's, whose pixels are drawn, always the same."""
    images = np.random.default_rng(0).integers(0, 256, (NOISE, model.settings.size, model.settings.size), np.uint8)
    number, visits = np.arange(NOISE), model.visits
    manifest = pd.DataFrame({"image_id": number.astype(str), "patient_id": number // visits, "visit": number % visits})
    manifest = manifest.assign(age=50 + manifest["visit"], **dict.fromkeys(model.labels, np.float32("nan")))
    return Sample(Radiographs(images, manifest, model.labels, visits), number, manifest, None)
