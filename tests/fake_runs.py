"""Run folders as training writes them, made without training: known labels, drawn probabilities."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

TARGETS = {"cnn": "lungdet.models.cnn.CNN", "cnn_lstm": "lungdet.models.cnn_lstm.CNNLSTM"}


def predictions(datasets: dict[str, int], seed: int = 0, skill: float = 1.0, draw: int = 0) -> pd.DataFrame:
    """One row an image, two images a patient; `seed` decides the labels, `draw` the probabilities."""
    tables = []
    for number, (dataset, images) in enumerate(datasets.items()):
        rng = np.random.default_rng([seed, number])
        target = (rng.random(images) < 0.4 + 0.2 * number).astype(np.float32)
        target[:2] = 0, 1
        noise = np.random.default_rng([draw, seed, number]).normal(size=images)
        logit = (skill * (target - 0.5) + noise).astype(np.float32)
        patient = np.arange(images) // 2
        tables.append(
            pd.DataFrame(
                {
                    "image_id": [f"{dataset}/{seed}_{i:04d}" for i in range(images)],
                    "patient_id": [f"{dataset}/{seed}_{i}" for i in patient],
                    "dataset": dataset,
                    "visit": np.arange(images, dtype=np.int32) % 2,
                    "age": np.float32(50),
                    "sex": "F",
                    "view": "PA",
                    "target_abnormal": target,
                    "logit_abnormal": logit,
                    "probability_abnormal": (1 / (1 + np.exp(-logit))).astype(np.float32),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def write_run(
    folder: Path,
    model: str = "cnn",
    seed: int = 0,
    datasets: dict[str, int] | None = None,
    test: pd.DataFrame | None = None,
    val: pd.DataFrame | None = None,
    skill: float = 1.0,
    config: dict | None = None,
    split_seed: int = 0,
    finished: bool = True,
) -> Path:
    """Writes the run folder and returns it; without `finished`, one that stopped while training."""
    datasets = datasets or {"chestxray14": 68}
    draw = 100 * len(model) + seed
    test = predictions(datasets, seed=1 + split_seed, skill=skill, draw=draw) if test is None else test
    val = predictions(datasets, seed=1000 + split_seed, skill=skill, draw=draw) if val is None else val
    folder.mkdir(parents=True)
    base = {
        "model": {"_target_": TARGETS[model], "sequence": "rows", "dropout": 0.5},
        "data": {"_target_": "lungdet.data.x.X", "root": "/somewhere", "batch_size": 32, "split_seed": split_seed},
        "augment": {"rotation": 10},
        "trainer": {"max_epochs": 3},
        "task": "abnormal",
        "seed": seed,
        "run_dir": str(folder),
        "logger": {"name": folder.name},
    }
    for key, value in (config or {}).items():
        node, (*above, last) = base, key.split(".")
        for name in above:
            node = node.setdefault(name, {})
        node[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(base))
    parts = {
        name: {
            "hash": hashlib.sha256("".join(sorted(table.image_id)).encode()).hexdigest()[:16],
            "images": len(table),
            "patients": table.patient_id.nunique(),
            "abnormal": int(table.target_abnormal.sum()),
        }
        for name, table in (("train", val), ("val", val), ("test", test))
    }
    environment = {
        "run": folder.name,
        "started": "2026-01-01T10:00:00",
        "finished": "2026-01-01T10:05:00" if finished else None,
        "versions": {"torch": "2.15.0", "lungdet": "0.1.0"},
        "git": None,
        "hardware": {"device": "CPU", "cores": 2},
        "precision": "bf16-mixed",
        "memory_format": "channels_last",
        "data": {
            "fingerprint": "0123abcd",
            "images": 450,
            "patients": 223,
            "excluded": 1,
            "resize": "squash",
            "image_size": 224,
            "sources": {name: {"images": n, "of": 112120, "patients": n // 2} for name, n in datasets.items()},
        },
        "split": {"name": "random", "seed": split_seed, "hash": "split" + parts["test"]["hash"], "parts": parts},
        "parameters": 1_234_567 if model == "cnn" else 2_345_678,
        "epochs": 3,
        "best_epoch": 2,
        "fit_seconds": 100.0 + seed,
        "images_per_second": 45.5,
        "peak_memory_bytes": 900_000_000,
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    pd.DataFrame({"image_id": val.image_id, "split": "val"}).to_csv(folder / "split.csv", index=False)
    if finished:
        (folder / "predictions").mkdir()
        val.to_parquet(folder / "predictions" / "val.parquet")
        test.to_parquet(folder / "predictions" / "test.parquet")
    return folder
