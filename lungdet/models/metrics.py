"""The metrics that are shown while a model trains, of one label; a report has its own, of log-odds on disk."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_accuracy,
    binary_auroc,
    binary_f1_score,
    binary_precision,
    binary_recall,
)

METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "accuracy": binary_accuracy,
    "auroc": binary_auroc,
    "f1": binary_f1_score,
    "precision": binary_precision,
    "recall": binary_recall,
}


def measure(target: Tensor, logit: Tensor) -> dict[str, Tensor]:
    """Accuracy, precision, recall, F1 and AUROC of one label, an image being called abnormal from log-odds of 0 on.

    Args:
        target: (N,), 1 / 0 / NaN where it is not known.
        logit: (N,), log-odds.

    Returns:
        By name; NaN without an image of each class, and where a logit is: torchmetrics would give such a network an
        AUROC of 1. Precision is NaN where nothing is called abnormal: torchmetrics says 0.
    """
    known = ~target.isnan()
    target, logit = target[known].int(), logit[known]
    undefined = torch.tensor(float("nan"), device=target.device)
    if len(target.unique()) < 2 or logit.isnan().any():
        return dict.fromkeys(METRICS, undefined)
    # Between 0 and 1, since torchmetrics guesses per call whether it got logits; in the logits' order and with 0 at one
    # half, as probabilities are, which in fp32 tie above log-odds of some 16.
    score = 0.5 + 0.5 * F.softsign(logit)
    values = {name: metric(score, target) for name, metric in METRICS.items()}
    return values if (logit > 0).any() else values | {"precision": undefined}
