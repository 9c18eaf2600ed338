"""Visits: how many images of its patient a case has before it, and what has changed since the visit before."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

FOLLOWED = ("abnormal", "pneumonia", "effusion")
"""The labels whose changes are followed; `abnormal` is any finding."""
LENGTHS = {"1": 1, "2": 2, "3": 3, "4 to 7": 4, "8 or more": 8}
"""By group its shortest series, the image to classify counted."""


class Group(NamedTuple):
    """Cases that are judged together: those in which a `finding` made a `change`, or whose series has a `length`."""

    finding: str | None = None
    change: str | None = None
    length: str | None = None

    @property
    def name(self) -> str:
        """What its numbers are filed under: `pneumonia appeared`, `4 to 7`."""
        return self.length or f"{self.finding} {self.change}"


def groups(table: pd.DataFrame, labels: Sequence[str]) -> dict[Group, tuple[tuple[str, ...], np.ndarray]]:
    """Labelled cases by what changed since the visit before, and by the length of their series.

    A model that calls images normal or abnormal is asked about a finding where nothing else made the patient abnormal,
    now or at the visit before. A case is in no group of a finding that is unknown at either, or without a visit before.

    Returns:
        By group the labels that AUROC is of and which images (N,) are in it.
    """
    by_change: dict[Group, tuple[tuple[str, ...], np.ndarray]] = {}
    for finding in FOLLOWED:
        label = finding if finding in labels else "abnormal"
        if label not in labels or f"target_{finding}" not in table:
            continue
        now, before = table[f"target_{finding}"].to_numpy(), label_before(table, finding)
        alone = (now == table[f"target_{label}"].to_numpy()) & (before == label_before(table, label))
        if alone.any():
            changes = {"appeared": before == 0, "cleared": before == 1, "unchanged": before == now}
            by_change |= {Group(finding, change): ((label,), alone & inside) for change, inside in changes.items()}
    known = table[[f"target_{name}" for name in labels]].notna().any(axis=1)
    length = pd.cut(earlier_visits(table) + 1, [*LENGTHS.values(), np.inf], right=False, labels=list(LENGTHS))
    by_length = {Group(length=name): (tuple(labels), (known & (length == name)).to_numpy()) for name in LENGTHS}
    return by_change | {group: cases for group, cases in by_length.items() if cases[1].any()}


def earlier_visits(table: pd.DataFrame) -> np.ndarray:
    """How many images each case has before it, (N,): its patient's with a smaller `visit`, labelled or not.

    They are counted among the images tested, which are all of a patient's that there are: patients are split whole.
    """
    return table.groupby("patient_id")["visit"].rank(method="min").to_numpy() - 1


def label_before(table: pd.DataFrame, finding: str) -> np.ndarray:
    """The label at the patient's visit before, (N,), NaN where that is unknown or there is none.

    Of several images of one visit the finding is there if one shows it.
    """
    visits = table.groupby(["patient_id", "visit"])[f"target_{finding}"].max()
    before = visits.groupby("patient_id").shift()
    return before.reindex(pd.MultiIndex.from_frame(table[["patient_id", "visit"]])).to_numpy(np.float64)
