"""Bootstrap over patients: metrics of thousands of redrawn test parts at once, the same draws for every model.

A draw takes as many patients as there are, with replacement, and all images of each: images of one patient are no
independent cases. Sums over a draw's images come from sums by patient (one matrix product for all draws and models),
its ranking from a running count along the images ranked once.

Legend: B draws, P patients, N images, C cases, M metrics.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from lungdet.evaluation.statistics.cases import Case, Ranking, Sums, deviation
from lungdet.evaluation.statistics.metrics import METRICS, Metric
from lungdet.machine import hardware

FEWER = 500
"""Draws at most where many groups are measured: intervals take only the draws' deviation."""


def replicate(
    cases: Sequence[Case],
    patient: np.ndarray,
    draws: int,
    metrics: Sequence[Metric] = tuple(METRICS.values()),
) -> np.ndarray:
    """Metrics of redrawn test parts, (C, M, B); NaN where undefined in a draw.

    Args:
        cases: on the same N images.
        patient: (N,) number of each image's patient, 0 .. P-1.
        draws: B, how often the patients are drawn anew; they depend on P and on B alone.
        metrics: M of them, themselves and not what is `drawn` in their place.
    """
    patients = int(patient.max()) + 1
    by_patient = [case.sums(patient, patients) for case in cases]
    totals = np.concatenate(by_patient, axis=1)
    # A draw's gaps scatter about those of the test part as these do about the truth: twice the variance.
    scatter = [np.sqrt(2) * deviation(sums) for sums in by_patient]
    ranked = any(metric.ranked for metric in metrics)
    rankings = [Ranking(case, patient) for case in cases] if ranked else []
    values = np.full((len(cases), len(metrics), draws), np.nan)

    def fill(chunk: tuple[int, np.ndarray]) -> None:
        start, times = chunk
        redrawn = (times.astype(np.float64) @ totals).reshape(len(times), len(cases), -1)
        for number in range(len(cases)):
            sums = Sums.of(redrawn[:, number], scatter[number])
            steps = rankings[number].steps(times) if ranked else None
            for place, metric in enumerate(metrics):
                values[number, place, start : start + len(times)] = metric.of(sums, steps)

    with ThreadPoolExecutor(hardware.cores()) as pool:
        for _ in pool.map(fill, multiplicities(patients, draws)):
            pass
    return values


def multiplicities(patients: int, draws: int) -> Iterator[tuple[int, np.ndarray]]:
    """How often each patient is in each draw, some draws at a time: the first draw's number and (draws, P) counts."""
    size = max(6, 16_000 // patients)
    for start in range(0, draws, size):
        rows = min(size, draws - start)
        drawn = np.random.default_rng([0, start]).integers(patients, size=(rows, patients))
        drawn += patients * np.arange(rows)[:, None]
        yield start, np.bincount(drawn.ravel(), minlength=rows * patients).reshape(rows, patients).astype(np.int32)
