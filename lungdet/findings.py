"""The label vocabulary: which findings exist, what a source calls them, and what `abnormal` means in each source.

A finding is 1 (reported), 0 (looked for and not reported) or NaN (the source does not say). Unknown is never 0.

- ChestX-ray14 mined 14 tags from the reports by text analysis (Wang et al. 2017). A tag that is absent was not
  reported, so it is 0; tuberculosis was never looked for, so it is NaN.
- Montgomery and Shenzhen (Jaeger et al. 2014) state for every image whether it shows tuberculosis; nobody went
  through the 14 tags one by one, so those are NaN even on normal images.
- `abnormal` is 1 for any of the 14 tags or for tuberculosis, 0 for "No Finding" or a normal reading. That is not the
  same thing in the two kinds of source, and whatever pools them has to say so.
"""

import re

import numpy as np
import pandas as pd

from lungdet.errors import InputError

CHESTXRAY14_TAGS: dict[str, str] = {
    "Atelectasis": "atelectasis",
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation",
    "Edema": "edema",
    "Effusion": "effusion",
    "Emphysema": "emphysema",
    "Fibrosis": "fibrosis",
    "Hernia": "hernia",
    "Infiltration": "infiltration",
    "Mass": "mass",
    "Nodule": "nodule",
    "Pleural_Thickening": "pleural_thickening",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "pneumothorax",
}
"""ChestX-ray14's tags as its tables spell them, and the manifest column of each."""

CHESTXRAY14_FINDINGS: tuple[str, ...] = tuple(CHESTXRAY14_TAGS.values())
FINDINGS: tuple[str, ...] = (*CHESTXRAY14_FINDINGS, "tuberculosis")
"""Every finding a manifest has a column for."""

TASKS: dict[str, tuple[str, ...]] = {"abnormal": ("abnormal",), "findings": FINDINGS}
"""What a model can be asked: the manifest columns it learns to tell."""

NO_FINDING = "No Finding"


class UnknownFindingError(InputError):
    """A label that the vocabulary lacks."""


def from_tags(tags: pd.Series, where: str) -> pd.DataFrame:
    """ChestX-ray14's `Finding Labels` strings ("Effusion|Mass", "No Finding") as finding columns.

    Args:
        tags: one string an image.
        where: file and column the strings come from, for the error message.

    Returns:
        The 14 findings as 0 / 1, `tuberculosis` as NaN and `abnormal`, all float32, on the index of `tags`.

    Raises:
        UnknownFindingError: a tag that is not among the 14, or "No Finding" together with one.
    """
    # The table of 112,120 rows has 836 different strings: parse each string once.
    codes, strings = pd.factorize(tags.fillna(""))
    known = [*CHESTXRAY14_TAGS, NO_FINDING]
    rows = np.zeros((len(strings), len(known)), np.float32)
    for row, text in zip(rows, strings, strict=True):
        names = [_spelling(name) for name in text.split("|")]
        for name in names:
            if name not in known:
                raise UnknownFindingError(
                    f"{where}: unknown label {name!r} in {text!r}; known labels are {', '.join(known)}"
                )
            row[known.index(name)] = 1
        if row[-1] and len(set(names)) > 1:
            raise UnknownFindingError(f"{where}: {text!r} names a finding beside {NO_FINDING!r}")
    table = pd.DataFrame(rows[codes][:, :-1], index=tags.index, columns=list(CHESTXRAY14_FINDINGS))
    return table.assign(tuberculosis=np.float32("nan"), abnormal=(1 - rows[codes][:, -1]).astype(np.float32))


def from_tuberculosis(positive: pd.Series) -> pd.DataFrame:
    """The finding columns of a source that states tuberculosis alone (booleans): the 14 others stay NaN."""
    table = pd.DataFrame(np.float32("nan"), index=positive.index, columns=list(CHESTXRAY14_FINDINGS))
    value = positive.astype(np.float32)
    return table.assign(tuberculosis=value, abnormal=value)


def finding_of(name: str) -> str | None:
    """The finding that a table's column calls by this name, as ChestX-ray14 or a manifest spells it; None of none."""
    plain = _spelling(name.strip().capitalize()).lower().replace(" ", "_")
    return plain if plain in FINDINGS else None


def _spelling(tag: str) -> str:
    """The usual spelling of a tag: `Infiltrate` (the box list) is `Infiltration`, spaces stand for underscores."""
    tag = re.sub(r"\s+", " ", tag.strip())
    return {"Infiltrate": "Infiltration", "Pleural Thickening": "Pleural_Thickening"}.get(tag, tag)
