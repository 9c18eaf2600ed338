"""How far a file that was handed over is from the run that it is of: in log-odds, AUROC and grey levels."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import expit

from lungdet.data.store.depth import greys
from lungdet.data.store.images import read_grey
from lungdet.errors import InputError, UnreadableImageError
from lungdet.evaluation.statistics.metrics import auroc, ensemble
from lungdet.inference.formats import Predictor
from lungdet.inference.graph import Graph
from lungdet.inference.model import Model
from lungdet.inference.samples import Sample
from lungdet.instantiation import instantiate

BATCH = 16
"""Cases at once; the first of them are asked for one by one, too."""
FILES = 24
"""Original files, at most, that are resized by the file and by the store."""


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


def resizing(model: Model, graph: Graph, predict: Predictor, tested: Sample, trust: Sequence[str]) -> dict:
    """What the file makes of original image files, which it resizes itself, beside what it makes of prepared ones.

    Returns:
        `files`, how many; the largest difference in `grey_levels` and in `log_odds`, and the share of `pixels` that
        differ; or the `reason` why nothing was measured.
    """
    paths = _originals(model, tested, trust)
    pixels, levels, odds = [], [], []
    for row, path in paths.items():
        try:
            grey = read_grey(path)
        except (InputError, UnreadableImageError, OSError):  # of DICOM files: nothing is installed that reads them
            continue
        if grey.dtype == np.uint16:
            if not isinstance(model.settings.bits, int):
                continue
            grey = greys(model.settings.bits)[grey]
        original, square = (np.array(image)[None, None] for image in (grey, tested.radiographs.stored[row]))
        own = (graph.squares(torch.from_numpy(original)).numpy() * 255).round().astype(np.int16)
        gap = np.abs(own - square)
        pixels.append((gap > 0).mean())
        levels.append(gap.max())
        odds.append(np.abs(predict(_single(graph, original))[0] - predict(_single(graph, square))[0]).max())
    if not odds:
        return {"reason": "no original image file of the run can be read"}
    return {
        "files": len(odds),
        "grey_levels": int(max(levels)),
        "pixels": float(np.mean(pixels)),
        "log_odds": float(max(odds)),
    }


def _expected(model: Model, batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N, L): the log-odds that the run's networks give, with nothing of the graph's."""
    image, length, when = (torch.from_numpy(batch[name]) for name in ("image", "length", "when"))
    with torch.no_grad():
        logits = [network.log_odds(network(image.float() / 255, length, when)) for network in model.networks]
    stacked = np.stack([logit.double().numpy() for logit in logits])
    return ensemble(stacked) if len(stacked) > 1 else stacked[0]


def _originals(model: Model, tested: Sample, trust: Sequence[str]) -> dict[int, Path]:
    """The files of some test images, by their row in the store."""
    if tested.table is None:
        return {}
    try:
        roots = instantiate("data", model.runs[0].config.data, trust).roots()
    except InputError:  # the table that names them is gone
        return {}
    rows = tested.head(FILES).rows
    return {
        int(row): Path(roots[image.dataset]) / image.path
        for row, image in zip(rows, tested.manifest.iloc[rows].itertuples(), strict=True)
        if image.dataset in roots
    }


def _single(graph: Graph, image: np.ndarray) -> dict[str, np.ndarray]:
    """An image as a case by itself."""
    inputs = {"image": image, "length": np.array([1]), "when": np.array([[50, 0]], np.float32)}
    return {name: inputs[name] for name in graph.inputs}


def _area(target: pd.Series, logit: np.ndarray) -> float | None:
    """AUROC, None where it is undefined."""
    area = auroc(target, logit)
    return None if math.isnan(area) else float(area)
