"""How far a file that was handed over is from the run that it is of, in log-odds and AUROC."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from scipy.special import expit

from lungdet.evaluation.statistics.metrics import auroc, ensemble
from lungdet.inference.formats import Predictor
from lungdet.inference.graph import Graph
from lungdet.inference.model import Model
from lungdet.inference.samples import Sample

BATCH = 16
"""Cases at once; the first of them are asked for one by one, too."""


def differences(model: Model, graph: Graph, predict: Predictor, tested: Sample) -> dict:
    """What a file computes of prepared images, beside what the run's networks do in fp32.

    Args:
        model: the run.
        graph: of it.
        predict: the file's own runtime.
        tested: cases.

    Returns:
        `images`: `test` or `noise`, and how many `cases`; `log_odds`, the largest difference, and `furthest`, whose;
        `calibrated`, the largest of those probabilities; `auroc` by label of the `run` and the `file`, None where
        undefined; `own`, how far the run's own predictions lie and the precision that they were `made_in`, None of
        several runs.
    """
    whole = tested.batches(("image", "length", "when"), BATCH)
    expected = np.concatenate([_expected(model, batch) for batch in whole])
    outputs = [predict(batch) for batch in tested.batches(graph.inputs, BATCH)]
    computed, calibrated = (np.concatenate(parts).astype(np.float64) for parts in zip(*outputs, strict=True))
    first = tested.head(BATCH)
    alone = np.concatenate([predict(batch)[0] for batch in first.batches(graph.inputs, 1)])
    gap = np.abs(computed - expected).max(axis=1)
    gap[: len(alone)] = np.maximum(gap[: len(alone)], np.abs(alone - expected[: len(alone)]).max(axis=1))
    gap = np.nan_to_num(gap, nan=math.inf)
    temperature = np.array([model.temperature[label] for label in model.labels])
    known = ~np.isnan(temperature)
    gap_of_calibrated = np.abs(calibrated - expit(expected / temperature))[:, known]
    facts = {
        "images": "noise" if tested.table is None else "test",
        "cases": len(gap),
        "log_odds": float(gap.max()),
        "furthest": str(tested.manifest["image_id"].iloc[tested.rows[gap.argmax()]]),
        "calibrated": float(gap_of_calibrated.max()) if known.any() else None,
    }
    if tested.table is None:
        return facts
    pairs = {"run": expected, "file": computed}
    areas = {
        label: {source: _area(tested.table[f"target_{label}"], logit[:, i]) for source, logit in pairs.items()}
        for i, label in enumerate(model.labels)
    }
    own = None
    if len(model.runs) == 1:
        logits = tested.table[[f"logit_{label}" for label in model.labels]].to_numpy()
        own = {"log_odds": float(np.abs(logits - computed).max()), "made_in": model.runs[0].environment["precision"]}
    return facts | {"auroc": areas, "own": own}


def _expected(model: Model, batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N, L): the log-odds that the run's networks give, with nothing of the graph's."""
    image, length, when = (torch.from_numpy(batch[name]) for name in ("image", "length", "when"))
    with torch.no_grad():
        logits = [network.log_odds(network(image.float() / 255, length, when)) for network in model.networks]
    stacked = np.stack([logit.double().numpy() for logit in logits])
    return ensemble(stacked) if len(stacked) > 1 else stacked[0]


def _area(target: pd.Series, logit: np.ndarray) -> float | None:
    """AUROC, None where it is undefined."""
    area = auroc(target, logit)
    return None if math.isnan(area) else float(area)
