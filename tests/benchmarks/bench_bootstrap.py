"""Redrawn test parts against a loop over scikit-learn's metrics, at the size of the published test list."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from scipy.special import expit

from lungdet.evaluation.statistics import metrics
from lungdet.evaluation.statistics.bootstrap import multiplicities, replicate
from lungdet.evaluation.statistics.cases import Case
from tests.benchmarks.pairs import compare
from tests.evaluation.statistics.test_bootstrap import sklearn_metrics

IMAGES, PATIENTS, DRAWS, IN_THE_LOOP = 25_596, 2_797, 2_000, 5


def run(data: Path) -> list[dict]:
    """The ratio of draws a second, and what 10,000 draws of two models take in a process of their own."""
    patient, cases = study()

    def ours() -> float:
        start = time.perf_counter()
        replicate(cases, patient, DRAWS)
        return DRAWS / (time.perf_counter() - start)

    def loop() -> float:
        times = next(multiplicities(PATIENTS, IN_THE_LOOP))[1]
        start = time.perf_counter()
        for drawn in times:
            images = np.repeat(np.arange(IMAGES), drawn[patient])
            for case in cases:
                sklearn_metrics(case.y[images], expit(case.logit[images]), 0.5)
        return len(times) / (time.perf_counter() - start)

    detail = f"{len(metrics.METRICS)} metrics of two models, {IMAGES:,} images, {PATIENTS:,} patients"
    ratio = compare("bootstrap against a loop over scikit-learn", ours, loop, "draws/s", detail)
    timed = [_alone() for _ in range(3)]
    seconds = np.array([one[0] for one in timed])
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75])
    peak = max(one[1] for one in timed)
    whole = {"name": "10,000 draws", "seconds": middle, "low": low, "high": high, "pairs": len(timed)}
    return [ratio, {**whole, "detail": f"{detail}; peak resident memory {peak / 1e9:.2f} GB, imports included"}]


def study() -> tuple[np.ndarray, list[Case]]:
    """Two models' predictions of as many images and patients as ChestX-ray14's published test list holds."""
    generator = np.random.default_rng(0)
    patient = np.sort(np.append(np.arange(PATIENTS), generator.integers(0, PATIENTS, IMAGES - PATIENTS)))
    y = (generator.random(IMAGES) < 0.615).astype(np.float64)
    logit = generator.normal(size=(2, IMAGES)) + y
    return patient, [Case(y, one) for one in logit]


def _alone() -> tuple[float, float]:
    """Seconds and peak resident bytes of 10,000 draws."""
    code = (
        "import resource, time; from tests.benchmarks.bench_bootstrap import study; "
        "from lungdet.evaluation.statistics.bootstrap import replicate; patient, cases = study(); "
        "start = time.perf_counter(); replicate(cases, patient, 10_000); "
        "print(time.perf_counter() - start, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, peak = done.stdout.split()
    return float(seconds), float(peak)
