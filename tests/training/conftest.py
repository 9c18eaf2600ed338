"""Fixtures that tests of training share."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 patients with two small images each; a bright disc is abnormal."""
    folder = tmp_path_factory.mktemp("clinic")
    generator = np.random.default_rng(0)
    rows = []
    for patient in range(48):
        for visit in range(2):
            image = generator.integers(0, 80, (64, 64)).astype(np.uint8)
            if patient % 2:
                cv2.circle(image, tuple(int(c) for c in generator.integers(16, 48, 2)), 10, 200, -1)
            cv2.imwrite(str(folder / f"{patient}_{visit}.png"), image)
            rows.append(
                {"path": f"{patient}_{visit}.png", "patient_id": patient, "visit": visit, "abnormal": patient % 2}
            )
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"
