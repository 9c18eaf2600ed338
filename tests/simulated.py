"""Simulated studies with a known truth: patients with several images, each liked or disliked by a model as a whole."""

import numpy as np
import pandas as pd

ORDINARY = {"skill": 1.2, "too_high": 0.0, "too_sure": 1.0}


def cohort(generator: np.random.Generator, patients: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and the number of each image's patient: 2 to 13 images a patient, whose labels are alike."""
    patient = np.repeat(np.arange(patients), 1 + generator.geometric(0.45, patients).clip(max=12))
    liability = -0.3 + 1.2 * generator.normal(size=patients)[patient] + 0.5 * generator.normal(size=len(patient))
    return (generator.random(len(patient)) < 1 / (1 + np.exp(-2 * liability))).astype(np.float64), patient


def one_model(
    generator: np.random.Generator, y: np.ndarray, patient: np.ndarray, skill: float, too_high: float, too_sure: float
) -> np.ndarray:
    """Log-odds of a model that reads some patients' images too high, others' too low."""
    own = 0.6 * generator.normal(size=patient.max() + 1)
    logit = 1.6 * skill * (y - 0.5) + own[patient] + generator.normal(size=len(y))
    return too_sure * (logit + too_high)


def several_seeds(
    generator: np.random.Generator, y: np.ndarray, patient: np.ndarray, seeds: int, skill: float, spread: float
) -> list[np.ndarray]:
    """Log-odds of a model by seed: what it likes of patients and images is its own, and a little is each seed's.

    Args:
        generator: of everything that is drawn.
        y: labels (N,).
        patient: (N,) number of each image's patient.
        seeds: how many.
        skill: mean over all seeds that there could be.
        spread: standard deviation of the skill over seeds.
    """
    patients = patient.max() + 1
    own = 0.7 * generator.normal(size=patients)
    by_image = 0.5 * generator.normal(size=len(y))
    logits = []
    for _ in range(seeds):
        of_seed = 0.3 * generator.normal(size=patients)
        logit = 1.6 * (skill + spread * generator.normal()) * (y - 0.5) + (own + of_seed)[patient]
        logits.append(logit + by_image + 0.6 * generator.normal(size=len(y)))
    return logits


def table(y: np.ndarray, logit: np.ndarray, patient: np.ndarray) -> pd.DataFrame:
    """Predictions as runs keep them, as far as evaluation reads them."""
    return pd.DataFrame({"patient_id": patient, "target_abnormal": y, "logit_abnormal": logit})
