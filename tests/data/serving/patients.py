"""Patients of several visits whose images tests of serving read."""

import numpy as np
import pandas as pd


def manifest(images: int, visits: int = 2) -> pd.DataFrame:
    """So many images, each patient's `visits` in a row; every other one is abnormal."""
    rows = np.arange(images)
    return pd.DataFrame(
        {
            "image_id": [f"d/{row:08d}" for row in rows],
            "patient_id": [f"d/{row // visits}" for row in rows],
            "visit": rows % visits,
            "age": 50.0,
            "abnormal": rows % 2,
        }
    )
