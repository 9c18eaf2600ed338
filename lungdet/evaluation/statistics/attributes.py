"""Attributes: what groups of images there are by dataset, sex, age, view and visit."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

OLDEST = 120
"""An age above it is a slip of the pen and counts as unknown."""
UNKNOWN = "unknown"
SEXES = {"F": "female", "M": "male", "O": "other"}
AGES = {"under 18": 0, "18 to 39": 18, "40 to 59": 40, "60 to 74": 60, "75 or older": 75}
VISITS = {"first": 0, "second": 1, "3rd to 5th": 2, "6th or later": 5}
"""By group its first age or visit number, these from 0."""

ATTRIBUTES: dict[str, Callable[[pd.Series], pd.Series]] = {
    "dataset": lambda values: values.astype("category"),
    "sex": lambda values: values.map(lambda sex: SEXES.get(sex, sex), na_action="ignore").astype("category"),
    "age": lambda values: _banded(values, AGES, OLDEST + 1),
    "view": lambda values: values.astype("category"),
    "visit": lambda values: _banded(values, VISITS, np.inf),
}
"""What images are grouped by: from a column of the predictions to groups in their order, missing where unknown."""


def divided(table: pd.DataFrame, attribute: str) -> tuple[dict[str, np.ndarray], str | None]:
    """Which images (N,) are in each group, those of which it is unknown last; or why there are not two groups.

    Unknown is what is missing, what says `unknown`, and what is no age or visit.
    """
    recorded = table[attribute].mask(table[attribute].astype("str").str.lower() == UNKNOWN)
    if recorded.isna().all():
        return {}, "not recorded"
    group = ATTRIBUTES[attribute](recorded)
    groups = {str(name): (group == name).to_numpy() for name in group.cat.categories if (group == name).any()}
    unknown = group.isna().to_numpy()
    if len(groups) < 2:
        known = " where it is known" if groups and unknown.any() else ""
        return {}, f"{next(iter(groups), UNKNOWN)} on every image{known}"
    return groups | ({UNKNOWN: unknown} if unknown.any() else {}), None


def _banded(values: pd.Series, first: Mapping[str, float], end: float) -> pd.Series:
    """The bands that numbers lie in; what is no number (a table's age of `050Y`) is in none."""
    numbers = pd.to_numeric(values.astype("object"), errors="coerce").astype("float64")
    return pd.cut(numbers, [*first.values(), end], right=False, labels=list(first))
