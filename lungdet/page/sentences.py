"""Sentences: a comparison of two models as a person quotes it, and what its p-value shows."""

from collections.abc import Callable, Mapping, Sequence

from lungdet.evaluation.statistics.intervals import SEEDS_NEEDED
from lungdet.page.wording import in_a_sentence, interval, label, p_value, points, signed

SIGNIFICANT = 0.05
"""A difference is shown where Holm's p is below it."""


def significant(comparison: dict, key: str) -> bool:
    """Whether a comparison shows a difference in what stands under `key`."""
    p = comparison["metrics"][key]["p_holm"]
    return p is not None and p < SIGNIFICANT


def difference(
    comparison: dict,
    key: str,
    metric: str | None = None,
    quantity: str | None = None,
    called: Callable[[str], str] = label,
) -> str:
    """A comparison as a person quotes it: the difference, its interval and what is shown.

    Args:
        comparison: of `first` with `second`; `metrics` holds under `key` the `difference`, `interval` and `p_holm`.
        key: see `comparison`.
        metric: whose unit the difference has, where the key is no metric.
        quantity: what differs, where that is not the metric itself: `drop in AUROC under noise`.
        called: a model's name for people.
    """
    cell, metric = comparison["metrics"][key], metric or key
    noun, first, second = quantity or in_a_sentence(metric), called(comparison["first"]), called(comparison["second"])
    if cell["difference"] is None:
        return f"{second} and {first}: no difference in their {noun} can be measured ({cell['undefined']})."
    size, unit = points(metric, abs(cell["difference"]))
    larger = cell["difference"] > 0
    if not float(size):
        clause = f"{second} and {first} have the same {noun}"
    elif noun == "accuracy":
        clause = f"{second} is {size}{unit} {'more' if larger else 'less'} accurate than {first}"
    else:
        clause = f"{second}'s {noun} is {size}{unit} {'above' if larger else 'below'} {first}'s"
    if cell["interval"] is None:
        return without_interval(clause, cell["undefined"])
    says = verdict(comparison["counts_seeds"], cell["p_holm"], cell["interval"])
    return with_verdict(clause, metric, cell["interval"], says)


def verdict(counts_seeds: bool, p_holm: float | None, ends: Sequence[float]) -> str:
    """What a difference with an interval shows, and why not where the interval alone would have."""
    if p_holm is not None and p_holm < SIGNIFICANT:
        return f"a difference is shown{'' if counts_seeds else THESE_RUNS}"
    adjusted = f" (p {p_value(p_holm)}, adjusted for all that is compared)" if ends[0] * ends[1] > 0 else ""
    return f"no difference is shown{adjusted}"


def with_verdict(clause: str, metric: str, ends: Sequence[float], verdict: str) -> str:
    """A clause with its interval and what that shows."""
    return f"{clause}, {interval(ends, metric, signed)}: {verdict}."


def apart(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two intervals have nothing in common."""
    return first[1] < second[0] or second[1] < first[0]


def without_interval(clause: str, reason: str, noun: str = "difference") -> str:
    """A clause that has no interval."""
    return f"{clause}; no interval ({reason}): no {noun} is shown."


def scope_of(seeds: Sequence[int]) -> str:
    """What is added to a verdict on one model under these seeds; nothing on a system that has none."""
    return THESE_RUNS if 0 < len(seeds) < SEEDS_NEEDED else ""


def undefined(cells: Mapping[str, Sequence[str] | None]) -> list[str]:
    """Notes below a table: each reason that something is undefined for once, with what, where the rows do not tell."""
    named = {reason: f"{', '.join(names)}: " if names else "" for reason, names in cells.items()}
    return [f"Undefined: {names}{reason}." for reason, names in named.items()]


THESE_RUNS = ", for these very runs"
"""What is said of a verdict that does not count the spread over seeds."""
