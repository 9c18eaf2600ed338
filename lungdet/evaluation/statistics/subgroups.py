"""Subgroups: how a model does in groups of images, and whether its largest gap between two is more than selection.

A group is all images with the labels outside it unknown: every group is measured on the same draws of patients, so a
patient with images in two of them (views, visits) is drawn for both, and no gap takes its two groups for independent.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
import pandas as pd

from lungdet.evaluation.statistics.attributes import ATTRIBUTES, UNKNOWN, divided
from lungdet.evaluation.statistics.cases import Undefined
from lungdet.evaluation.statistics.estimates import mean, minus
from lungdet.evaluation.statistics.intervals import LEVEL, Estimate, quantile, variance
from lungdet.evaluation.statistics.measure import THRESHOLDED, Cuts, as_block, counts, estimated, measurable

FEW = 20
"""A group is in no comparison if what is compared rests on fewer of its patients."""
METRICS = ("recall", "specificity", "auroc", "accuracy")


def of_model(tables: Sequence[pd.DataFrame], labels: Sequence[str], cuts: Sequence[Cuts], draws: int) -> dict:
    """A block for each group of each attribute, and the gaps between groups of one attribute, the largest first.

    Gaps are in recall at 0.5, since who is missed counts; for findings in AUROC, over those that both groups have.

    Args:
        tables: see `measure.scored`.
        labels: `abnormal`, or findings.
        cuts: of each seed.
        draws: redrawn test parts.

    Returns:
        `attributes`: by attribute and group the counts, whether it is `few`, and the metrics at both thresholds;
        `left_out`: attributes with fewer than two values, and why; `measure`: what `gaps` are in; each gap has a 95 %
        `interval`, the Bonferroni-wide `interval_of_largest`, which allows for the number of gaps, and is `shown`
        where that one excludes 0.
    """
    measure = "recall" if len(labels) == 1 else "auroc"
    attributes, left_out, pairs = {}, {}, []
    for attribute in ATTRIBUTES:
        groups, reason = divided(tables[0], attribute)
        if reason:
            left_out[attribute] = reason
            continue
        attributes[attribute], judged = {}, {}
        for group, inside in groups.items():
            block, by_label = _measured(tables, inside, labels, cuts, draws)
            enough = {
                name: metrics[measure] for name, metrics in by_label.items() if metrics[measure].supporting >= FEW
            }
            attributes[attribute][group] = block | {"few": not enough}
            if group != UNKNOWN:
                judged[group] = enough
        both = itertools.combinations(judged.items(), 2)
        pairs += [(attribute, *pair) for pair in both if pair[0][1].keys() & pair[1][1].keys()]
    gaps = sorted([_gap(*pair, len(pairs)) for pair in pairs], key=lambda gap: -gap["difference"])
    return {"measure": measure, "attributes": attributes, "left_out": left_out, "gaps": gaps}


def _measured(
    tables: Sequence[pd.DataFrame], inside: np.ndarray, labels: Sequence[str], cuts: Sequence[Cuts], draws: int
) -> tuple[dict, dict[str, dict[str, Estimate]]]:
    """A group's block, and its estimates at 0.5 by label and metric."""
    targets = [f"target_{name}" for name in labels]
    within = [table.assign(**{name: table[name].where(inside) for name in targets}) for table in tables]
    over = measurable(within[0], labels)
    called, size = [name for name in METRICS if name in THRESHOLDED], counts(tables[0][inside])
    at_half = {name: estimated(within, (name,), draws, METRICS) for name in over}
    at_chosen = {name: estimated(within, (name,), draws, called, cuts) for name in over}
    block = as_block(
        test=_over_findings(at_half, METRICS, len(within), size["patients"]),
        at_validation_threshold=_over_findings(at_chosen, called, len(within), size["patients"]),
    )
    return size | block | ({"findings": over} if len(labels) > 1 else {}), at_half


def _over_findings(
    by_label: Mapping[str, Mapping[str, Estimate]], names: Sequence[str], seeds: int, patients: int
) -> dict[str, Estimate]:
    """Each metric's mean over findings, in a draw over those that are there."""
    if not by_label:
        undefined = Undefined("no finding is there both present and absent")
        return dict.fromkeys(names, Estimate([undefined] * seeds, np.full((seeds, 0), np.nan), patients, 1))
    means = {name: mean([of_label[name] for of_label in by_label.values()], over_defined=True) for name in names}
    return {name: estimate._replace(patients=patients) for name, estimate in means.items()}


def _gap(
    attribute: str, first: tuple[str, dict[str, Estimate]], second: tuple[str, dict[str, Estimate]], gaps: int
) -> dict:
    """Between two groups, JSON-ready, over the labels that both can be judged by; one of so many gaps."""
    shared = [name for name in first[1] if name in second[1]]
    means = [
        (group, mean([by_label[name] for name in shared], over_defined=True)) for group, by_label in (first, second)
    ]
    (lower, below), (higher, above) = sorted(means, key=lambda pair: fmean(pair[1].values))
    ends, estimate = [fmean(below.values), fmean(above.values)], minus(above, below)
    patients, seeds, freedom = variance(estimate._replace(patients=estimate.supporting))
    value, error = ends[1] - ends[0], math.sqrt(patients + seeds + (_unseen(below) + _unseen(above)))
    alone, of_all = (
        [float(max(value - margin, -1)), float(min(value + margin, 1))]
        for margin in (error * quantile(1 - (1 - LEVEL) / 2 / among, freedom) for among in (1, gaps))
    )
    return {
        "attribute": attribute,
        "groups": [lower, higher],
        "values": ends,
        "difference": value,
        "interval": alone,
        "interval_of_largest": of_all,
        "shown": bool(of_all[0] > 0),
        "labels": shared,
    }


def _unseen(estimate: Estimate) -> float:
    """The variance that a share has where it is the same in every draw (all found, say), as Agresti and Coull have it.

    Draws say that there is none; no miss in 20 patients does not rule out 15 % of misses.
    """
    drawn = estimate.draws.mean(axis=0)
    if np.nanmax(drawn) - np.nanmin(drawn) > 1e-12:
        return 0.0
    cases = estimate.supporting + 4
    share = (fmean(estimate.values) * estimate.supporting + 2) / cases
    return share * (1 - share) / cases
