"""Metrics: each is defined once, for a test part as it is, for thousands of redrawn ones and for the report.

A metric is a formula on sums over images (`Sums`), or on images ranked by log-odds (`Steps`). It is called with labels
y (N,) 1 / 0 / NaN, log-odds of 1 (N,) and where it needs one a threshold of them, and gives one number, `Undefined`
with its reason where something that it needs is not among the images. Probabilities near 1 tie, in float32 from
log-odds of 17 on, and have lost how sure a model was; log-odds have not. The threshold is the log-odds of the
probability that reports name, 0 of 0.5: one number, or (N,) where images of several runs are pooled.

Another metric: define it below and enter it in `METRICS`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from lungdet.evaluation.statistics.calibration import without_chance
from lungdet.evaluation.statistics.cases import NO_ABNORMAL, NO_NORMAL, Case, Ranking, Steps, Sums, Undefined, known
from lungdet.evaluation.statistics.scales import CLIPPED, CORRELATION, LOSS, SHARE, Scale


class Need(NamedTuple):
    """What a metric is undefined without: the reason, and how much of it there is."""

    reason: str
    amount: Callable[[Sums], float]


ABNORMAL = Need(NO_ABNORMAL, lambda n: n.tp + n.fn)
NORMAL = Need(NO_NORMAL, lambda n: n.tn + n.fp)
CALLED = Need("no image is called abnormal", lambda n: n.tp + n.fp)
NOT_CALLED = Need("every image is called abnormal", lambda n: n.tn + n.fn)
ABNORMAL_OR_CALLED = Need("no image is abnormal and none is called so", lambda n: 2 * n.tp + n.fp + n.fn)


@dataclass(frozen=True)
class Metric:
    """A metric by its formula, which gives NaN where it is undefined.

    `rests_on` are the classes whose patients are counted to say how many it rests on: the scarcer of them, all patients
    where there are none. Its interval is symmetric on `scale`. `drawn` is what is drawn in its place, where draws of
    the metric itself would lie off it.
    """

    name: str
    formula: Callable[[Sums], np.ndarray] | Callable[[Steps], np.ndarray]
    needs: tuple[Need, ...] = ()
    rests_on: tuple[int, ...] = (0, 1)
    thresholded: bool = False
    ranked: bool = False
    scale: Scale = SHARE
    drawn: "Metric | None" = None

    def __call__(self, y: ArrayLike, logit: ArrayLike, threshold: ArrayLike = 0.0) -> float:
        """Of one test part, without the images whose label is NaN."""
        return _scores([self], y, logit, threshold)[self.name]

    def of(self, sums: Sums, steps: Steps | None = None) -> np.ndarray:
        """Of test parts by their sums or, where it ranks images, their steps; NaN where undefined."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.formula(steps if self.ranked else sums)


def scores(
    y: ArrayLike, logit: ArrayLike, threshold: ArrayLike = 0.0, names: Iterable[str] | None = None
) -> dict[str, float]:
    """Several metrics at once: all of `METRICS`, or those named."""
    return _scores([METRICS[name] for name in (METRICS if names is None else names)], y, logit, threshold)


def log_odds(p: ArrayLike) -> np.ndarray:
    """Log-odds of probabilities; 0 and 1, which have none, are taken as float64's eps and 1 - eps, see `CERTAIN`."""
    eps = np.finfo(np.float64).eps
    return special.logit(np.clip(np.asarray(p, np.float64), eps, 1 - eps))


CERTAIN = float(log_odds(1))
"""Log-odds that a probability of 1 is taken to have, 36 nats."""


def ensemble(logit: np.ndarray) -> np.ndarray:
    """Log-odds (N,) of the mean of several models' probabilities, given as log-odds (models, N)."""
    yes, no = (special.logsumexp(special.log_expit(sign * np.asarray(logit, np.float64)), axis=0) for sign in (1, -1))
    return yes - no


def _area(steps: Steps) -> np.ndarray:
    # Normal images that are ranked above a hit count whole, those of the same log-odds half.
    above = steps.images_so_far + steps.images_before - 2 * steps.hits_so_far + steps.hits
    normal = steps.images - steps.abnormal
    return 1 - np.einsum("bn,bn->b", steps.hits, above) / (2 * steps.abnormal * normal)


def _precision_averaged(steps: Steps) -> np.ndarray:
    precision = steps.hits_so_far / np.maximum(steps.images_so_far, 1)
    return np.einsum("bn,bn->b", steps.hits, precision) / steps.abnormal


accuracy = Metric("accuracy", lambda n: (n.tp + n.tn) / (n.tp + n.fp + n.tn + n.fn), rests_on=(), thresholded=True)
"""Share of images called rightly."""
precision = Metric("precision", lambda n: n.tp / (n.tp + n.fp), (CALLED,), rests_on=(1,), thresholded=True)
"""Share of the images called abnormal that are."""
recall = Metric("recall", lambda n: n.tp / (n.tp + n.fn), (ABNORMAL,), rests_on=(1,), thresholded=True)
"""Share of the abnormal images that are called so (sensitivity)."""
f1 = Metric("f1", lambda n: 2 * n.tp / (2 * n.tp + n.fp + n.fn), (ABNORMAL_OR_CALLED,), (1,), thresholded=True)
"""Harmonic mean of precision and recall."""
specificity = Metric("specificity", lambda n: n.tn / (n.tn + n.fp), (NORMAL,), rests_on=(0,), thresholded=True)
"""Share of the normal images that are called so."""
balanced_accuracy = Metric(
    "balanced_accuracy",
    lambda n: (n.tp / (n.tp + n.fn) + n.tn / (n.tn + n.fp)) / 2,
    (ABNORMAL, NORMAL),
    thresholded=True,
)
"""Mean of recall and specificity; .5 for a constant answer, whatever the share of abnormal images."""
mcc = Metric(
    "mcc",
    lambda n: (n.tp * n.tn - n.fp * n.fn) / np.sqrt((n.tp + n.fp) * (n.tp + n.fn) * (n.tn + n.fp) * (n.tn + n.fn)),
    (ABNORMAL, NORMAL, CALLED, NOT_CALLED),
    thresholded=True,
    scale=CORRELATION,
)
"""Matthews' correlation of call and label: 0 is chance, 1 perfect; undefined where either never varies."""
auroc = Metric("auroc", _area, (ABNORMAL, NORMAL), ranked=True)
"""Chance that an abnormal image gets higher log-odds than a normal one, ties counting half."""
average_precision = Metric("average_precision", _precision_averaged, (ABNORMAL,), ranked=True)
"""Precision averaged over the steps in recall, without interpolation; the share of abnormal images is chance."""
brier = Metric("brier", lambda n: n.squares / n.images, rests_on=())
"""Mean squared distance of the probability from the label: 0 is perfect, .25 a constant .5."""
log_loss = Metric("log_loss", lambda n: n.surprises / n.images, rests_on=(), scale=LOSS)
"""Mean negative log-likelihood in nats."""
calibration_error = Metric(
    "calibration_error",
    lambda n: np.abs(n.gaps).sum(-1) / n.images,
    rests_on=(),
    scale=CLIPPED,
    drawn=Metric("true_calibration", lambda n: without_chance(n.gaps, n.scatter) / n.images),
)
"""Expected calibration error: how far the share of abnormal images lies from what was said, over 15 equal bins.

Each bin of probability counts by its images. The number of a perfect model is not 0 on few images, and falls with
their number (Guo et al. 2017, arXiv 1706.04599); what is drawn is what is left of it without chance.
"""

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        accuracy, precision, recall, f1, specificity, balanced_accuracy, mcc, auroc, average_precision, brier, log_loss,
        calibration_error,
    )
}  # fmt: skip
"""Every metric by name."""
STUDY = ("accuracy", "precision", "recall", "f1", "auroc")
"""The study's four metrics, and AUROC."""
FURTHER = tuple(name for name in METRICS if name not in STUDY)
"""What the second table adds."""


def _scores(metrics: Sequence[Metric], y: ArrayLike, logit: ArrayLike, threshold: ArrayLike) -> dict[str, float]:
    if np.ndim(threshold):
        threshold = np.asarray(threshold, np.float64)[~np.isnan(np.asarray(y, np.float64))]
    y, logit = known(y, logit)
    if not len(y):
        return {metric.name: Undefined("no image has a known label") for metric in metrics}
    no_threshold = bool(np.isnan(threshold).any())
    case = Case(y, logit, 0.0 if no_threshold else threshold)
    total = case.total()
    ranked = any(metric.ranked for metric in metrics)
    steps = Ranking(case, np.arange(len(y))).steps(np.ones((1, len(y)), np.int32)) if ranked else None
    values: dict[str, float] = {}
    for metric in metrics:
        missing = next((need.reason for need in metric.needs if not need.amount(total)), None)
        if metric.thresholded and no_threshold:
            missing = f"there is no threshold: {getattr(threshold, 'reason', 'it is NaN')}"
        values[metric.name] = Undefined(missing) if missing else float(np.squeeze(metric.of(total, steps)))
    return values
