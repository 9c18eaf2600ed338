"""Selective prediction: what a model reaches on the images that it is surest of, if a reader takes the others.

An image is the surer the further its probability is from 0.5, the threshold that it is called at (Geifman and El-Yaniv
2017, arXiv 1705.08500). Images that are as sure as the least sure one that is kept are kept, too, so that their order
decides nothing. In redrawn test parts the images stay kept or referred as they are: how sure is sure enough is a rule
of the model's, not of the patients'.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lungdet.evaluation.statistics.estimates import mean, minus
from lungdet.evaluation.statistics.intervals import Estimate
from lungdet.evaluation.statistics.measure import as_block, estimated, measurable

KEPT = (100, 90, 80, 70, 60, 50)
"""Shares of the images that a model keeps, in per cent, the rest going to a reader."""
METRICS = ("accuracy", "recall", "specificity")


def of_model(tables: Sequence[pd.DataFrame], labels: Sequence[str], draws: int) -> dict[str, dict]:
    """What a model reaches at 0.5 on the images that it keeps, means over seeds.

    With findings the images are sorted for each finding by itself, and numbers are means over the findings that are
    there both present and absent.

    Args:
        tables: the same images' predictions, one table a seed.
        labels: `abnormal`, or findings.
        draws: redrawn test parts.

    Returns:
        By per cent kept a block of accuracy, recall, specificity and `gain`, the accuracy less that on all images; and
        the share that is `referred` indeed, None without a label to measure.
    """
    by_share, blocks = {per_cent: _reached(tables, labels, per_cent, draws) for per_cent in KEPT}, {}
    for per_cent, reached in by_share.items():
        gain = {"gain": minus(reached["accuracy"], by_share[100]["accuracy"])}
        blocks[str(per_cent)] = as_block(test=reached | gain) | {"referred": _referred(tables, labels, per_cent)}
    return blocks


def _reached(tables: Sequence[pd.DataFrame], labels: Sequence[str], per_cent: int, draws: int) -> dict[str, Estimate]:
    over = measurable(tables[0], labels)
    if not over:
        return estimated(tables, labels, draws, METRICS)
    kept = [[_kept(table, label, per_cent) for table in tables] for label in over]
    by_label = [estimated(of_seeds, ("abnormal",), draws, METRICS) for of_seeds in kept]
    return {name: mean([estimates[name] for estimates in by_label], over_defined=True) for name in METRICS}


def _referred(tables: Sequence[pd.DataFrame], labels: Sequence[str], per_cent: int) -> float | None:
    shares = [
        1 - _kept(table, label, per_cent)["target_abnormal"].count() / known
        for label in measurable(tables[0], labels)
        for table in tables
        if (known := table[f"target_{label}"].count())
    ]
    return float(np.mean(shares)) if shares else None


def _kept(table: pd.DataFrame, label: str, per_cent: int) -> pd.DataFrame:
    """A label as `abnormal`, which may have one class alone, unknown on the images that are referred."""
    target, logit = table[f"target_{label}"], table[f"logit_{label}"]
    sure = logit.abs().where(target.notna())  # as far from 0.5 as the probability is, but without ties near 0 and 1
    least = sure.quantile((100 - per_cent) / 100, interpolation="higher")
    return table[["patient_id"]].assign(target_abnormal=target.where(sure >= least), logit_abnormal=logit)
