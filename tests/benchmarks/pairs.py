"""Two ways of doing the same, measured in turns so that both meet the same weather."""

from collections.abc import Callable

import numpy as np

PAIRS = 9


def compare(name: str, ours: Callable[[], float], theirs: Callable[[], float], unit: str, detail: str) -> dict:
    """The ratio of two rates (`ours` / `theirs`), each function doing the work once and returning its rate.

    Returns:
        `ratio`, the median over the pairs, `low` and `high`, its quartiles, the median rates, and what was said.
    """
    rates = np.empty((PAIRS, 2))
    for pair in range(PAIRS):
        order = ((0, ours), (1, theirs))
        for side, measure in order if pair % 2 else order[::-1]:
            rates[pair, side] = measure()
    low, middle, high = np.quantile(rates[:, 0] / rates[:, 1], [0.25, 0.5, 0.75])
    mine, other = np.median(rates, axis=0)
    facts = {"ratio": middle, "low": low, "high": high, "ours": mine, "theirs": other}
    return {
        "name": name,
        **{key: float(value) for key, value in facts.items()},
        "unit": unit,
        "pairs": PAIRS,
        "detail": detail,
    }
