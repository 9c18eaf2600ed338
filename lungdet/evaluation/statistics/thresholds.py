"""Thresholds: chosen on validation predictions by a named rule, and stored in the run folder."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from lungdet.errors import InputError
from lungdet.evaluation.statistics.cases import NO_ABNORMAL, NO_NORMAL, Undefined, known
from lungdet.machine.writing import write_text

log = logging.getLogger(__name__)

RULES: dict[str, str] = {
    "youden": "recall + specificity - 1 is highest",
    "f1": "F1 is highest",
    "sensitivity": "the highest threshold whose recall is at least `at`",
    "specificity": "the lowest threshold whose specificity is at least `at`",
    "fixed": "`at` itself",
}
"""Every rule, and which threshold it picks."""
USUAL = "youden"
"""The rule where none is asked for."""


class ThresholdError(InputError):
    """A rule that does not exist, or a value it cannot use; the message lists what there is."""


class Threshold(NamedTuple):
    """A threshold and where it comes from; an image is called abnormal where its log-odds are above `logit`."""

    logit: float
    """`Undefined` where there is none."""
    rule: str
    at: float | None
    images: int
    """Validation images with a known label that it was chosen on."""

    def as_dict(self) -> dict[str, object]:
        """What is written to disk: `value` is the probability; what could not be chosen is null, beside its reason."""
        if math.isnan(self.logit):
            return {"value": None, **self._asdict(), "logit": None, "reason": self.logit.reason}
        return {"value": float(special.expit(self.logit)), **self._asdict()}


def choose(y: ArrayLike, logit: ArrayLike, rule: str, at: float | None = None, part: str = "validation") -> Threshold:
    """The threshold a rule picks on validation labels `y` and log-odds `logit`, both (N,).

    Candidates lie half-way between neighbouring log-odds, and below and above all of them. Of equally good ones (`f1`,
    `youden`) the one nearest to a probability of 0.5 is taken, so that a lucky sample decides as little as possible.

    Raises:
        ThresholdError: no such rule, or `at` is missing, out of [0, 1], or given to a rule that takes none.
    """
    check(rule, at)
    y, logit = known(y, logit)
    if rule == "fixed":
        return Threshold(float(special.logit(at)), rule, at, len(y))
    abnormal, normal = int(np.sum(y == 1)), int(np.sum(y == 0))
    # Each rule needs the class it counts; youden needs both.
    if (not abnormal and rule != "specificity") or (not normal and rule in ("youden", "specificity")):
        reason = f"{NO_NORMAL if abnormal else NO_ABNORMAL} among the {len(y)} labelled {part} images"
        return Threshold(Undefined(reason), rule, at, len(y))
    candidate, hits, alarms = _candidates(y, logit)
    recall, specificity = hits / (abnormal or 1), 1 - alarms / (normal or 1)
    if rule == "sensitivity":
        value = candidate[recall >= at - TOLERANCE].max()
    elif rule == "specificity":
        value = candidate[specificity >= at - TOLERANCE].min()
    else:
        worth = recall + specificity if rule == "youden" else 2 * hits / (hits + alarms + abnormal)
        best = candidate[worth >= worth.max() - TOLERANCE]
        value = best[np.argmin(np.abs(best))]
    return Threshold(float(value), rule, at, len(y))


def check(rule: str, at: float | None) -> None:
    """Raises ThresholdError unless the rule exists and `at` is what it takes."""
    if rule not in RULES:
        rules = "\n".join(f"  {name}: {meaning}" for name, meaning in RULES.items())
        raise ThresholdError(f"threshold.rule={rule} is no rule; the rules are\n{rules}")
    if rule in ("youden", "f1"):
        if at is not None:
            raise ThresholdError(f"threshold.at={at} has no meaning for threshold.rule={rule}: leave it out")
    elif not isinstance(at, int | float) or not 0 <= at <= 1:
        raise ThresholdError(f"threshold.rule={rule} needs a number from 0 to 1 in threshold.at, found {at}")
    elif rule == "fixed" and at in (0, 1):
        raise ThresholdError(f"threshold.at={at}: no image would be called otherwise; give a number between 0 and 1")


def chosen_on(
    table: pd.DataFrame, labels: Sequence[str], rule: str, at: float | None, part: str = "validation"
) -> dict[str, Threshold]:
    """Each label's threshold chosen on the predictions of a part."""
    return {label: choose(table[f"target_{label}"], table[f"logit_{label}"], rule, at, part) for label in labels}


def unvalidated(labels: Sequence[str], rule: str, at: float | None) -> dict[str, Threshold]:
    """Each label's threshold where no validation predictions are known: none, but of `fixed`."""
    logit = float(special.logit(at)) if rule == "fixed" else Undefined("no validation predictions of it are known")
    return dict.fromkeys(labels, Threshold(logit, rule, at, 0))


def for_run(
    folder: Path, val: pd.DataFrame, labels: Sequence[str], rule: str, at: float | None, asked: bool = True
) -> dict[str, Threshold]:
    """The thresholds chosen on a run's own validation predictions, and stored in its folder.

    Those that stand there already stay where nobody `asked` for the rule: who predicts goes by them.
    """
    chosen = chosen_on(val, labels, rule, at)
    stored = load(folder)
    if _plain(stored) == _plain(chosen):
        return stored
    if stored:
        _, before, value, _ = next(iter(stored.values()))
        outcome = f"are replaced by rule {rule}" if asked else "stay"
        log.info("%s: the stored thresholds (%s) %s", folder, _in_words(before, value), outcome)
        if not asked:
            return chosen
    try:
        save(chosen, folder)
    except OSError as error:
        log.warning("%s: the thresholds could not be stored there (%s); they stand in metrics.json", folder, error)
    return chosen


def save(chosen: Mapping[str, Threshold], folder: Path) -> None:
    """Writes `thresholds.json` into a run folder, by label, whole or not at all."""
    write_text(folder / "thresholds.json", json.dumps(_plain(chosen), indent=2, allow_nan=False) + "\n")


def load(folder: Path) -> dict[str, Threshold]:
    """The thresholds stored in a run folder, by label; empty where none were stored yet."""
    path = folder / "thresholds.json"
    if not path.exists():
        return {}
    try:
        stored_by_label = json.loads(path.read_text(encoding="utf-8"))
        return {label: _read(stored) for label, stored in stored_by_label.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ThresholdError(f"{path} is damaged ({error}); delete it, and thresholds are chosen anew") from error


def _read(stored: Mapping) -> Threshold:
    logit = Undefined(stored["reason"]) if stored["logit"] is None else float(stored["logit"])
    return Threshold(logit, stored["rule"], stored["at"], stored["images"])


def _plain(chosen: Mapping[str, Threshold]) -> dict[str, dict]:
    return {label: threshold.as_dict() for label, threshold in chosen.items()}


def _in_words(rule: str, at: float | None) -> str:
    return rule if at is None else f"{rule} at {at}"


TOLERANCE = 1e-12
"""Shares of counts that are equal may differ in the last bit; 0.95 asked for is met by 19 of 20."""


def _candidates(y: np.ndarray, logit: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds in rising order, and how many abnormal and how many normal images lie above each."""
    value, index, count = np.unique(logit, return_inverse=True, return_counts=True)
    hits = np.bincount(index, weights=y)
    candidate = np.concatenate([[value[0] - 1], (value[:-1] + value[1:]) / 2, [value[-1] + 1]])
    hits_below, images_below = np.append(0, np.cumsum(hits)), np.append(0, np.cumsum(count))
    hits_above = hits.sum() - hits_below
    return candidate, hits_above, len(y) - images_below - hits_above
