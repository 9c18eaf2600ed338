"""History: training and validation loss by epoch, in which overfitting shows as it happens."""

from collections.abc import Sequence

import pandas as pd

from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.sections.contract import Study
from lungdet.page import figures
from lungdet.page.document import Figure
from lungdet.page.wording import label, listed


def pictures(study: Study) -> list[Figure]:
    """The picture of all runs' `metrics.csv`; none where no run has one, or there are many models."""
    tables = {label(name): _read(replicates) for name, replicates in study.models.items()}
    tables = {name: histories for name, histories in tables.items() if histories}
    if not 0 < len(tables) <= figures.MOST_LINES:
        return []
    least = {name: [f"{history['val/loss'].min():.3f}" for history in histories] for name, histories in tables.items()}
    caption = (
        "A line a run: dashed in training, with dropout and augmentation, solid in validation; the dot's epoch was "
        "tested."
    )
    words = f"Lowest validation loss: {listed({name: sorted(losses) for name, losses in least.items()})}."
    return [Figure("history", figures.losses(tables), "Loss by epoch", words, caption)]


def _read(replicates: Sequence[Replicate]) -> list[pd.DataFrame]:
    tables = [result.run.epochs for replicate in replicates for result in replicate.results]
    return [table for table in tables if len(table)]
