"""Paired: how much models differ on the same test patients, with intervals, p-values and a sentence to quote."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from lungdet.evaluation.gathering.grouping import CONTROLS, role
from lungdet.evaluation.statistics.bootstrap import Case, from_sums, sums
from lungdet.evaluation.statistics.intervals import LEVEL, SEEDS_NEEDED, Estimate, difference, holm
from lungdet.evaluation.statistics.metrics import Undefined
from lungdet.page.wording import FLAGS, FURTHER, STUDY, in_a_sentence, label, p_value, points

SIGNS = 10_000
"""Random exchanges of the two models that a permutation test makes."""
BATCH = 200  # of them at a time


def pairs(models: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str]]:
    """Which models are compared: each with the CNN-LSTM of its settings, a control with that which it is most like.

    Without a CNN-LSTM, a control being none, those alike in every setting but their class; where none are, each with
    each.

    Args:
        models: each one's configuration, see `compare.identity`.
    """
    every = list(itertools.combinations(models, 2))

    def unlike(one: str, two: str, network: bool = False) -> int:
        """In how many settings that both have two models differ; with `network` those of the models themselves."""
        a, b = models[one], models[two]
        keys = (a.keys() & b.keys()) - {"split", *FLAGS}
        return sum(a[key] != b[key] for key in keys if key.startswith("model.") is network)

    roles = {name: role(one) for name, one in models.items()}
    with_lstm = []
    for other in [name for name in models if roles[name] != "cnn_lstm"]:
        found = [name for name in models if roles[name] == "cnn_lstm" and not unlike(other, name)]
        if roles[other] in CONTROLS:
            least = min((unlike(other, name, network=True) for name in found), default=0)
            found = [name for name in found if unlike(other, name, network=True) == least]
        with_lstm += [(other, name) for name in found]
    classes = {name: one["model._target_"] for name, one in models.items()}
    by_class = [pair for pair in every if classes[pair[0]] != classes[pair[1]] and not unlike(*pair)]
    return with_lstm or by_class or every


def compared(
    estimates: Mapping[str, Mapping[str, Estimate]],
    tables: Mapping[str, Sequence[pd.DataFrame]],
    labels: Sequence[str],
    which: Sequence[tuple[str, str]],
) -> list[dict]:
    """The pairs' differences at threshold 0.5 (second minus first), JSON-ready.

    The family that Holm's adjustment is over are the study's four metrics and AUROC of all pairs; the other metrics
    get intervals alone and support no claim. From three seeds a model, intervals and p-values count the seeds' spread;
    below, p is the permutation test's, and both are about the choice of test patients only.

    Args:
        estimates: each model's, by metric.
        tables: each model's predictions of the same images, one table a seed.
        labels: see `measure.scored`.
        which: see `pairs`.
    """
    found = []
    for first, second in which:
        counts_seeds = all(len(estimates[name]["accuracy"].values) >= SEEDS_NEEDED for name in (first, second))
        exchangeable = len(labels) == 1 and len(tables[first]) == len(tables[second])
        exchanged = permuted(tables[first], tables[second], labels[0]) if exchangeable else {}
        metrics = {}
        for name in (*STUDY, *FURTHER):
            value, low, high, p = difference(estimates[first][name], estimates[second][name])
            by_signs = exchanged.get(name, math.nan)
            reach = {"log_loss": math.inf, "mcc": 2.0}.get(name, 1.0)  # no difference is larger
            if not counts_seeds and not math.isnan(by_signs):
                p = by_signs
            metrics[name] = {
                "difference": _none(value),
                "interval": None if math.isnan(low) else [float(max(low, -reach)), float(min(high, reach))],
                "p_permutation": _none(by_signs),
                **({"p": p} if name in STUDY else {}),
                **({"undefined": getattr(low, "reason", "a metric is undefined")} if math.isnan(low) else {}),
            }
        found.append({"first": first, "second": second, "counts_seeds": counts_seeds, "metrics": metrics})
    _adjust([one["metrics"][name] for one in found for name in STUDY])
    return found


def permuted(
    first: Sequence[pd.DataFrame], second: Sequence[pd.DataFrame], label: str, signs: int = SIGNS, seed: int = 0
) -> dict[str, float]:
    """P-values, by metric, of exchanging both models' predictions patient by patient.

    If the models were alike, it would not matter which of them had read a patient's images. Seeds are exchanged
    together. AUROC and average precision are not among the metrics: an exchange would rank log-odds of two models
    against each other.

    Args:
        first: a model's predictions, one table a seed, of the same images as `second`'s.
        second: the other model's, as many.
        label: which predictions.
        signs: random exchanges.
        seed: of the exchanges.
    """
    patient, patients = pd.factorize(first[0]["patient_id"], sort=True)
    of_first, of_second = (
        np.stack([_sums(table, label, patient, len(patients)) for table in some]) for some in (first, second)
    )  # (S, P, K)
    middle, half = (of_first + of_second).sum(axis=1) / 2, (of_second - of_first) / 2

    def gap(moved: np.ndarray) -> dict[str, np.ndarray]:
        """Second minus first, mean over seeds, where this much was moved from the middle, (.., S, K) -> (..)."""
        apart = zip(from_sums(middle + moved).items(), from_sums(middle - moved).values(), strict=True)
        return {name: (one - other).mean(axis=-1) for (name, one), other in apart}

    found = gap(half.sum(axis=1))
    as_large = dict.fromkeys(found, 1)
    generator = np.random.default_rng(seed)
    for start in range(0, signs, BATCH):
        sign = generator.choice([-1.0, 1.0], size=(min(BATCH, signs - start), len(patients)))
        for name, exchanged in gap(np.einsum("bp,spk->bsk", sign, half, optimize=True)).items():
            # What is undefined after an exchange speaks for no difference.
            as_large[name] += int(np.sum(~(np.abs(exchanged) < np.abs(found[name]) - 1e-12)))
    return {
        name: Undefined("the metric is undefined") if np.isnan(found[name]) else count / (signs + 1)
        for name, count in as_large.items()
    }


def shown(one: dict, metric: str) -> bool:
    """Whether a comparison shows a difference: Holm's p is below 0.05."""
    p = one["metrics"][metric]["p_holm"]
    return p is not None and p < 1 - LEVEL


def sentence(one: dict, metric: str = "accuracy", called: Callable[[str], str] = label) -> str:
    """A comparison as a person quotes it: the difference, its interval and what is shown."""
    found = one["metrics"][metric]
    first, second = called(one["first"]), called(one["second"])
    if found["difference"] is None:
        return f"{second} and {first}: no difference in {in_a_sentence(metric)} can be measured ({found['undefined']})."
    size, unit = points(metric, abs(found["difference"]))
    larger = found["difference"] > 0
    if float(size) == 0:
        said = f"{second} and {first} have the same {in_a_sentence(metric)}"
    elif metric == "accuracy":
        said = f"{second} is {size}{unit} {'more' if larger else 'less'} accurate than {first}"
    else:
        said = f"{second}'s {in_a_sentence(metric)} is {size}{unit} {'above' if larger else 'below'} {first}'s"
    if found["interval"] is None:
        return f"{said}; no interval ({found['undefined']}): no difference is shown."
    low, high = (points(metric, end)[0] for end in found["interval"])
    return f"{said}, 95 % interval {low} to {high}: {verdict(found, one['counts_seeds'])}."


def verdict(found: dict, counts_seeds: bool) -> str:
    """What a difference with an interval shows, and why not where the interval alone would have."""
    if found["p_holm"] is not None and found["p_holm"] < 1 - LEVEL:
        return f"a difference is shown{'' if counts_seeds else ', for these very runs'}"
    low, high = found["interval"]
    adjusted = f" (p {p_value(found['p_holm'])}, adjusted for all that is compared)" if low * high > 0 else ""
    return f"no difference is shown{adjusted}"


def _sums(table: pd.DataFrame, label: str, patient: np.ndarray, patients: int) -> np.ndarray:
    case = Case(table[f"target_{label}"].to_numpy(np.float64), table[f"logit_{label}"].to_numpy())
    return sums(case, patient, patients)


def _adjust(family: Sequence[dict]) -> None:
    """Adds `p_holm` to each comparison; None where there is no p."""
    adjusted = holm([one["p"] for one in family])
    for one, p in zip(family, adjusted, strict=True):
        one["p"], one["p_holm"] = _none(one["p"]), _none(p)


def _none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
