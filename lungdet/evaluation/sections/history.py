"""History: training and validation loss by epoch, in which overfitting shows as it happens."""

from collections.abc import Sequence

import pandas as pd

from lungdet.evaluation.gathering.parts import Replicate
from lungdet.evaluation.sections.contract import Study
from lungdet.page import figures
from lungdet.page.document import Figure, Text
from lungdet.page.wording import label

LOSSES = {"train/loss": "--", "val/loss": "-"}


def show(_: dict, study: Study) -> list:
    """The picture of all runs' `metrics.csv`, or that they have none."""
    tables = {name: _read(replicates) for name, replicates in study.models.items()}
    tables = {name: histories for name, histories in tables.items() if histories}
    if not tables:
        return [Text("Not recorded: the runs have no metrics.csv.")]
    least = "; ".join(
        f"{label(name)} {', '.join(f'{lowest:.3f}' for lowest in sorted(_lowest(history) for history in histories))}"
        for name, histories in tables.items()
    )
    return [
        Figure(
            "history",
            figures.losses({label(name): runs for name, runs in tables.items()}, LOSSES),
            f"Loss by epoch. Lowest validation loss: {least}.",
            "Loss by epoch, a line a run: dashed in training, with dropout and augmentation, solid in validation. The "
            "epoch of the lowest validation loss (dot) is the one that was tested.",
        )
    ]


def _read(replicates: Sequence[Replicate]) -> list[pd.DataFrame]:
    tables = [result.run.epochs for replicate in replicates for result in replicate.results]
    return [table for table in tables if len(table)]


def _lowest(table: pd.DataFrame) -> float:
    return table["val/loss"].min()
