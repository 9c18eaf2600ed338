"""Confusion: how many images are called what, of those that are abnormal and of those that are normal."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lungdet.evaluation.sections.contract import thresholds_of
from lungdet.evaluation.statistics.cases import Case, Sums
from lungdet.evaluation.statistics.measure import Cuts, cut_of
from lungdet.page import figures
from lungdet.page.document import Figure, Table
from lungdet.page.sentences import undefined
from lungdet.page.wording import finding_name, label, listed, mean_count

KINDS = {
    "tp": "Abnormal, called so",
    "fn": "Abnormal, called normal",
    "fp": "Normal, called abnormal",
    "tn": "Normal, called so",
}


def counts(tables: Sequence[pd.DataFrame], name: str, cuts: Sequence[Cuts]) -> dict:
    """A label's confusion matrix at both thresholds, mean over seeds; None where there is no threshold."""
    block: dict = {"undefined": {}}
    for key, by_seed in (("test", [0.0] * len(tables)), ("at_validation_threshold", cuts)):
        at = [cut_of(table, name, cut) for table, cut in zip(tables, by_seed, strict=True)]
        missing = [cut for cut in at if np.isnan(cut).any()]
        matrices = [Case.of(table, name, cut).total()[:4] for table, cut in zip(tables, at, strict=True)]
        block[key] = None if missing else dict(zip(Sums._fields, np.mean(matrices, axis=0).tolist(), strict=False))
        if missing:
            block["undefined"][key] = f"there is no threshold: {getattr(missing[-1], 'reason', 'it is NaN')}"
    return block


def matrices(summary: dict) -> list[Figure]:
    """The confusion matrices as a picture, at the threshold asked for; without models that have none."""
    key, words = next(iter(thresholds_of(summary).items()))
    counts = {label(m): b["referral"]["confusion"]["abnormal"][key] for m, b in summary["models"].items()}
    counts = {name: of_model for name, of_model in counts.items() if of_model is not None}
    if not counts:
        return []
    fields = {name: [of_model[kind] for kind in KINDS] for name, of_model in counts.items()}
    spelt = {
        name: [f"{KINDS[kind]} {mean_count(of_model[kind])}" for kind in KINDS] for name, of_model in counts.items()
    }
    several = any(len(block["seeds"]) > 1 for block in summary["models"].values())
    means = "means over seeds, " if several else ""
    caption = f"Images at {words}, {means}and their share of the abnormal or normal ones."
    return [Figure("confusion", figures.confusion(fields), "Confusion matrices", f"{listed(spelt)}.", caption)]


def matrix(summary: dict, key: str) -> Table:
    """The confusion matrix at a threshold: a row a model, for findings a row a finding and model."""
    findings, rows, reasons = summary["task"] != "abnormal", [], {}
    models = summary["models"]
    for name, first in next(iter(models.values()))["referral"]["confusion"].items():
        counts = first["test"]
        if findings and not (counts["tp"] + counts["fn"] and counts["fp"] + counts["tn"]):
            continue  # not measured, as elsewhere
        for model, block in models.items():
            confusions = block["referral"]["confusion"][name]
            cells = ["undefined"] * 4
            if confusions[key] is not None:
                cells = [mean_count(confusions[key][kind]) for kind in KINDS]
            elif key in confusions["undefined"]:
                reasons[confusions["undefined"][key]] = None
            rows.append([*([finding_name(name)] if findings else []), label(model), *cells])
    several = any(len(block["seeds"]) > 1 for block in models.values())
    notes = [
        f"Images with a known label at {thresholds_of(summary)[key]}" + (", means over seeds." if several else ".")
    ]
    notes += undefined(reasons)
    return Table([*(["Finding"] if findings else []), "Model", *KINDS.values()], rows, 1 + findings, notes)
