"""How well maps point at regions, image by image, beside maps that know nothing of the image or of disease."""

import zlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import pandas as pd

from lungdet.data.regions import Regions
from lungdet.evaluation.explanations.explainer import Opened
from lungdet.evaluation.statistics.localisation import energy, overlap, pointing

KNOWS_NOTHING = ("random", "centre", "usual")
"""Maps without a network: smooth noise; a hill in the image's middle; where other patients' regions lie."""
SMOOTH, HILL = 0.08, 0.2
"""Deviations, as shares of the side: of the noise's blur, and of the hill."""


def regions(opened: Opened, test: pd.DataFrame, labels: Sequence[str]) -> list[tuple[str, str, Regions]]:
    """Of the images that a run was tested on where a label's region is known: image id, label, and its region alone.

    `abnormal` is where any finding is; another label is where that finding is.
    """
    targets = []
    for name, known in sorted(opened.regions(test["image_id"].tolist()).items()):
        of_label = dict(known.findings)
        of_label["abnormal"] = np.any([*known.findings.values()], axis=0)
        targets += [
            (name, label, Regions({label: of_label[label]}, known.lungs))
            for label in labels
            if label in of_label and of_label[label].any()
        ]
    return targets


def measured(
    opened: Opened, methods: Sequence[str], targets: Sequence[tuple[str, str, Regions]], test: pd.DataFrame
) -> pd.DataFrame:
    """A row an image, label and map: `image_id`, `label`, `patient_id`, `map`, and the measures of `localisation`.

    A map is called by its method, the same of a network with random weights `METHOD random weights`, or by one of
    `KNOWS_NOTHING`. `lungs` is NaN where they are not known.
    """
    images, labels = [name for name, _, _ in targets], [label for _, label, _ in targets]
    patients = test.set_index("image_id")["patient_id"].loc[images].to_numpy()
    places = np.stack([known.findings[label] for _, label, known in targets])
    rows = []
    for name, heats in _maps(opened, methods, images, labels, patients, places):
        for number, heat in enumerate(heats):
            lungs = targets[number][2].lungs
            rows.append(
                {
                    "image_id": images[number],
                    "label": labels[number],
                    "patient_id": patients[number],
                    "map": name,
                    "pointing": pointing(heat, places[number]),
                    "energy": energy(heat, places[number]),
                    "overlap": overlap(heat, places[number]),
                    "lungs": np.nan if lungs is None else energy(heat, lungs),
                }
            )
    return pd.DataFrame(rows)


def _maps(
    opened: Opened,
    methods: Sequence[str],
    images: Sequence[str],
    labels: Sequence[str],
    patients: np.ndarray,
    places: np.ndarray,
) -> Iterator[tuple[str, np.ndarray]]:
    """A map's name, and it of each image (N, H, W); of one method at a time."""
    yield from zip(KNOWS_NOTHING, _without_network(images, patients, places), strict=True)
    for method in methods:
        yield method, opened.maps(images, labels, method)
        yield f"{method} random weights", opened.maps(images, labels, method, random=True)


def _without_network(
    images: Sequence[str], patients: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The maps (N, H, W) of `KNOWS_NOTHING`."""
    side = places.shape[1]
    noise = [np.random.default_rng(zlib.crc32(name.encode())).random((side, side), np.float32) for name in images]
    noise = np.stack([cv2.GaussianBlur(field, (0, 0), SMOOTH * side) for field in noise])
    noise -= noise.min(axis=(1, 2), keepdims=True)
    away = (np.arange(side) + 0.5) / side - 0.5
    hill = np.exp(-(away[:, None] ** 2 + away**2) / (2 * HILL**2)).astype(np.float32)
    total = places.sum(axis=0, dtype=np.float32)
    usual = np.stack([total - places[patients == patient].sum(axis=0) for patient in patients])
    return noise, np.broadcast_to(hill, places.shape), usual
