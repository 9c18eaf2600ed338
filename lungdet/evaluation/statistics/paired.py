"""Paired: how much models differ on the same test patients, with intervals and p-values."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lungdet.evaluation.statistics.cases import Case, Sums, Undefined, or_none
from lungdet.evaluation.statistics.intervals import (
    SEEDS_NEEDED,
    Estimate,
    counts_seeds,
    difference,
    holm,
    p_value,
)
from lungdet.evaluation.statistics.metrics import FURTHER, METRICS, STUDY

SIGNS = 10_000
"""Random exchanges of the two models that a permutation test makes."""
BATCH = 200  # of them at a time


def compared(
    estimates: Mapping[str, Mapping[str, Estimate]],
    tables: Mapping[str, Sequence[pd.DataFrame]],
    labels: Sequence[str],
    pairs: Sequence[tuple[str, str]],
) -> list[dict]:
    """The pairs' differences at threshold 0.5 (second minus first), JSON-ready.

    The family that Holm's adjustment is over are the study's four metrics and AUROC of all pairs; the other metrics
    get intervals alone and support no claim. From three seeds a model, intervals and p-values count the seeds' spread;
    below, p is the permutation test's, and both are about the choice of test patients only.

    Args:
        estimates: each model's, by metric.
        tables: each model's predictions of the same images, one table a seed.
        labels: see `measure.scored`.
        pairs: of models.
    """
    comparisons = []
    for first, second in pairs:
        by_metric = [{name: estimates[model][name] for name in (*STUDY, *FURTHER)} for model in (first, second)]
        comparison = compare(first, by_metric[0], second, by_metric[1])
        exchangeable = len(labels) == 1 and len(tables[first]) == len(tables[second])
        exchanged = permuted(tables[first], tables[second], labels[0]) if exchangeable else {}
        for name, cell in comparison["metrics"].items():
            cell["p_permutation"] = or_none(exchanged.get(name, math.nan))
            if name not in STUDY:
                del cell["p"]
            elif len(tables[first]) < SEEDS_NEEDED and cell["p_permutation"] is not None:
                cell["p"] = cell["p_permutation"]
        comparisons.append(comparison)
    return adjust(comparisons)


def compare(first: str, of_first: Mapping[str, Estimate], second: str, of_second: Mapping[str, Estimate]) -> dict:
    """Two models' estimates by name, second minus first: `difference`, `interval`, `p` and why it is `undefined`."""
    cells = {}
    for name in of_first:
        value, low, high, p = difference(of_first[name], of_second[name])
        undefined = math.isnan(low)
        cells[name] = {
            "difference": or_none(value),
            "interval": None if undefined else [float(low), float(high)],
            "p": or_none(p),
            **({"undefined": low.reason} if undefined else {}),
        }
    seeds = counts_seeds([*of_first.values(), *of_second.values()])
    return {"first": first, "second": second, "counts_seeds": seeds, "metrics": cells}


def from_zero(estimates: Mapping[str, Estimate]) -> dict:
    """Whether estimates, differences already, are other than 0: a comparison of their p-values alone."""
    cells = {name: {"p": or_none(p_value(estimate))} for name, estimate in estimates.items()}
    return {"counts_seeds": counts_seeds(estimates.values()), "metrics": cells}


def adjust(comparisons: list[dict]) -> list[dict]:
    """The same with Holm's `p_holm`, over everything in them that has a p."""
    family = [cell for comparison in comparisons for cell in comparison["metrics"].values() if "p" in cell]
    adjusted = holm([math.nan if cell["p"] is None else cell["p"] for cell in family])
    for cell, p in zip(family, adjusted, strict=True):
        cell["p_holm"] = or_none(p)
    return comparisons


def permuted(first: Sequence[pd.DataFrame], second: Sequence[pd.DataFrame], label: str) -> dict[str, float]:
    """P-values, by metric, of exchanging both models' predictions patient by patient.

    If the models were alike, it would not matter which of them had read a patient's images. Seeds are exchanged
    together. Metrics that rank images are not among them: an exchange would rank log-odds of two models against each
    other.

    Args:
        first: a model's predictions, one table a seed, of the same images as `second`'s.
        second: the other model's, as many.
        label: which predictions.
    """
    patient, patients = pd.factorize(first[0]["patient_id"])
    of_first, of_second = (
        np.stack([Case.of(table, label).sums(patient, len(patients)) for table in tables]) for tables in (first, second)
    )  # (S, P, K)
    middle, half = (of_first + of_second).sum(axis=1) / 2, (of_second - of_first) / 2

    def gaps(moved: np.ndarray) -> dict[str, np.ndarray]:
        """Second minus first, mean over seeds, where this much was moved from the middle, (.., S, K) -> (..)."""
        above, below = Sums.of(middle + moved), Sums.of(middle - moved)
        summed = {name: metric for name, metric in METRICS.items() if not metric.ranked}
        return {name: (metric.of(above) - metric.of(below)).mean(axis=-1) for name, metric in summed.items()}

    observed = gaps(half.sum(axis=1))
    as_large = dict.fromkeys(observed, 1)
    generator = np.random.default_rng(0)
    for start in range(0, SIGNS, BATCH):
        sign = generator.choice([-1.0, 1.0], size=(min(BATCH, SIGNS - start), len(patients)))
        for name, exchanged in gaps(np.einsum("bp,spk->bsk", sign, half, optimize=True)).items():
            # What is undefined after an exchange speaks for no difference.
            as_large[name] += int(np.sum(~(np.abs(exchanged) < np.abs(observed[name]) - 1e-12)))
    return {
        name: Undefined("the metric is undefined") if np.isnan(observed[name]) else count / (SIGNS + 1)
        for name, count in as_large.items()
    }
