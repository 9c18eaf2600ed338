"""Whether a heat map points at a region: pointing game, energy inside, overlap; and intervals over patients.

Where several places of a map are equally hot, what any order of them would give on average counts: a map that is the
same everywhere gets the region's share of the image. Legend: H x W pixels, N images, S seeds, B draws, P patients.
"""

import numpy as np

from lungdet.evaluation.statistics.bootstrap import multiplicities
from lungdet.evaluation.statistics.intervals import Estimate

MEASURES = ("pointing", "energy", "overlap", "lungs")
"""`energy` inside the region, and inside the `lungs`."""


def pointing(heat: np.ndarray, region: np.ndarray) -> float:
    """The pointing game (Zhang et al. 2018): 1 where the hottest place lies in the region, both (H, W), else 0."""
    return float(region[heat == heat.max()].mean())


def energy(heat: np.ndarray, region: np.ndarray) -> float:
    """The share of a map's heat that lies in the region (energy-based pointing game, Wang et al. 2020)."""
    total = float(heat.sum(dtype=np.float64))
    return float(heat[region].sum(dtype=np.float64)) / total if total > 0 else float(region.mean())


def overlap(heat: np.ndarray, region: np.ndarray) -> float:
    """Intersection over union of the region and as many of the hottest pixels as it has."""
    count = int(region.sum())
    least = np.partition(heat, heat.size - count, axis=None)[heat.size - count]
    above, level = heat > least, heat == least
    inside = region[above].sum() + (count - above.sum()) * region[level].mean()
    return float(inside / (2 * count - inside))


def estimate(values: np.ndarray, patient: np.ndarray, draws: int) -> Estimate:
    """The mean over images of a share measured of each, under each seed, and in draws of the patients.

    Args:
        values: (S, N).
        patient: (N,), the number of each image's patient, 0 .. P-1.
        draws: B.
    """
    patients = int(patient.max()) + 1
    totals = np.stack([np.bincount(patient, of_seed, patients) for of_seed in [*values, np.ones(len(patient))]], axis=1)
    redrawn = np.concatenate([times @ totals for _, times in multiplicities(patients, draws)])
    return Estimate(values.mean(axis=1).tolist(), (redrawn[:, :-1] / redrawn[:, -1:]).T, patients, patients)
