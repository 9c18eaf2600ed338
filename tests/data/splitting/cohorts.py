"""Tables of patients to be split, and the splits that every protocol draws of them."""

from pathlib import Path

import numpy as np
import pandas as pd

from lungdet.data.splitting import protocols, splits


def cohort(patients: int, dataset: str = "clinic", seed: int = 0, abnormal: float = 0.4) -> pd.DataFrame:
    """Patients with 1 to 6 images each; a patient's label may change from image to image."""
    generator = np.random.default_rng(seed)
    rows = [
        {"patient_id": f"{dataset}/{p}", "image_id": f"{dataset}/{p}_{i}", "dataset": dataset, "abnormal": float(label)}
        for p in range(patients)
        for i, label in enumerate(generator.random(generator.integers(1, 7)) < abnormal)
    ]
    return pd.DataFrame(rows)


def three_sources() -> pd.DataFrame:
    return pd.concat([cohort(120), cohort(60, "hospital", 1), cohort(90, "ward", 2)])


def unasked() -> pd.DataFrame:
    raise AssertionError("nobody asked for a split that the data come with")


def drawn_by_every_protocol(table: pd.DataFrame, folder: Path) -> dict[str, splits.Split]:
    protocols.random(table).save(folder / "mine.csv", table)
    lists = protocols.random(table, seed=9).table.set_index("image_id")["split"]
    return {
        "random": protocols.random(table),
        "official": protocols.official(table, lists.replace({"train": "train_val", "val": "train_val"})),
        "folds": protocols.folds(table, 1),
        "leave_one_source_out": protocols.leave_one_source_out(table, "hospital"),
        "file": protocols.from_file(table, folder / "mine.csv"),
    }


def parts(split: splits.Split, table: pd.DataFrame) -> pd.DataFrame:
    return table.merge(split.table, on="image_id")
