"""Run folders as training writes them, made without training: known labels, drawn probabilities."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from scipy.special import expit

from lungdet.data.manifest import Sheet
from lungdet.data.sources.combined import CombinedDataModule
from lungdet.data.sources.phantom import PhantomDataModule
from lungdet.data.splitting.splits import Split, hash_of
from lungdet.evaluation import report, summary
from lungdet.evaluation.gathering.families import require_pairs
from lungdet.evaluation.gathering.models import group
from lungdet.evaluation.gathering.results import collect
from lungdet.evaluation.statistics.metrics import log_odds
from lungdet.findings import FINDINGS

TARGETS = {"cnn": "lungdet.models.cnn.CNN", "cnn_lstm": "lungdet.models.cnn_lstm.CNNLSTM"}


def predictions(
    datasets: dict[str, int], seed: int = 0, skill: float = 1.0, draw: int = 0, labels: tuple[str, ...] = ("abnormal",)
) -> pd.DataFrame:
    """One row an image, two images a patient; `seed` decides the labels, `draw` the probabilities.

    Abnormal images have a nodule and an effusion in turns, or tuberculosis in its two datasets, where the rest is
    unknown.
    """
    tables = []
    for number, (dataset, images) in enumerate(datasets.items()):
        rng = np.random.default_rng([seed, number])
        target = (rng.random(images) < 0.4 + 0.2 * number).astype(np.float32)
        target[:2] = 0, 1
        patient = np.arange(images) // 2
        known = {f"target_{label}": value for label, value in _findings(dataset, target).items()}
        known["target_abnormal"] = target
        predicted = {}
        generator = np.random.default_rng([draw, seed, number])
        for label in labels:
            signal = np.nan_to_num(known[f"target_{label}"], nan=0.5) - 0.5
            logit = skill * signal + generator.normal(size=images)
            predicted |= {f"logit_{label}": logit, f"probability_{label}": expit(logit)}
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
                    **known,
                    **predicted,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def _findings(dataset: str, abnormal: np.ndarray) -> dict[str, np.ndarray]:
    unknown = np.full(len(abnormal), np.nan, np.float32)
    if dataset in ("montgomery", "shenzhen"):
        return dict.fromkeys(FINDINGS, unknown) | {"tuberculosis": abnormal}
    turn = np.cumsum(abnormal) % 2
    has = {"effusion": abnormal * (turn == 1), "nodule": abnormal * (turn == 0), "tuberculosis": unknown}
    return {finding: has.get(finding, np.zeros_like(abnormal)).astype(np.float32) for finding in FINDINGS}


def consistent(table: pd.DataFrame) -> pd.DataFrame:
    """The predictions with the log-odds of their probabilities, which a test may have changed.

    Rounded, so that images stay equally sure whose probabilities are as far below 0.5 as above.
    """
    columns = [column for column in table if column.startswith("probability_")]
    return table.assign(
        **{column.replace("probability", "logit"): log_odds(table[column]).round(12) for column in columns}
    )


def shortcuts(test: pd.DataFrame, labels: tuple[str, ...] = ("abnormal",), **correct: float) -> pd.DataFrame:
    """Shortcuts that give this share of the images the right label and the others the wrong one."""
    tables = []
    for name, share in correct.items():
        wrong = np.arange(len(test)) >= share * len(test)
        guess = {}
        for label in labels:
            target = test[f"target_{label}"].fillna(0).to_numpy()
            guess[f"logit_{label}"] = log_odds(np.where(wrong, 1 - target, target))
        tables.append(pd.DataFrame({"image_id": test.image_id, "shortcut": name, **guess}))
    return pd.concat(tables, ignore_index=True)


def sheet(dataset: str) -> dict:
    """A dataset's data sheet as a run records it."""
    return asdict(PhantomDataModule.sheets.get(dataset) or CombinedDataModule.sheets.get(dataset) or Sheet())


def fold_of(fold: int, of: int) -> dict:
    """What tells the split of one of several folds."""
    return {"protocol": "folds", "fold": fold, "of": of}


def without_source(dataset: str) -> dict:
    """What tells the split that holds a dataset out."""
    return {"protocol": "leave_one_source_out", "held_out": dataset}


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
    task: str = "abnormal",
    split: dict | None = None,
    guesses: dict[str, float] | None = None,
) -> Path:
    """Writes the run folder and returns it; without `finished`, one that stopped while training.

    `split` are its facts, of a random one if none are given (see `fold_of`, `without_source`); `guesses` are shortcuts
    and the share of test images that each gets right.
    """
    labels = FINDINGS if task == "findings" else ("abnormal",)
    datasets = datasets or {"chestxray14": 68}
    draw = 100 * len(model) + seed
    test = predictions(datasets, seed=1 + split_seed, skill=skill, draw=draw, labels=labels) if test is None else test
    val = predictions(datasets, seed=1000 + split_seed, skill=skill, draw=draw, labels=labels) if val is None else val
    test, val = consistent(test), consistent(val)
    folder.mkdir(parents=True)
    base = {
        "model": {"_target_": TARGETS[model], "sequence": "rows", "dropout": 0.5},
        "data": {
            "_target_": "lungdet.data.x.X",
            "root": "/somewhere",
            "image_size": 64,
            "resize": "pad",
            "bits": None,
            "visits": 8,
            "batch_size": 32,
            "split_seed": split_seed,
        },
        "augment": {"rotation": 10},
        "trainer": {"max_epochs": 3},
        "task": task,
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
            "hash": hash_of(table.image_id.sort_values()),
            "images": len(table),
            "patients": table.patient_id.nunique(),
            "labelled": int(table.target_abnormal.count()),
            "abnormal": int(table.target_abnormal.sum()),
        }
        for name, table in (("train", val), ("val", val), ("test", test))
    }
    drawn = Split(**{"protocol": "random", "seed": split_seed, "table": test} | (split or {}))
    environment = {
        "run": folder.name,
        "overrides": [],
        "own_configuration": [],
        "started": "2026-01-01T10:00:00",
        "finished": "2026-01-01T10:05:00" if finished else None,
        "versions": {"torch": "2.15.0", "lungdet": "0.1.0"},
        "git": None,
        "hardware": {"device": "CPU", "cores": 2},
        "precision": "bf16-mixed",
        "memory_format": "channels_last",
        "data": {
            "fingerprint": "0123abcd",
            "identity": {kind: {"hash": "4567cdef"} for kind in ("images", "patients", "labels")},
            "store": "/somewhere/prepared",
            "bits": {},
            "images": 450,
            "patients": 223,
            "patients_known": True,
            "excluded": 1,
            "resize": "squash",
            "image_size": 224,
            "sources": {
                name: sheet(name) | {"images": n, "of": 112120, "patients": n // 2} for name, n in datasets.items()
            },
        },
        "split": drawn.facts | {"hash": "split" + parts["test"]["hash"], "parts": parts},
        "parameters": 1_234_567 if model == "cnn" else 2_345_678,
        "epochs": 3,
        "best_epoch": 2,
        "fit_seconds": 100.0 + seed,
        "images_per_second": 45.5,
        "peak_memory_bytes": 900_000_000,
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    learnt = val.reindex(columns=["image_id", "patient_id", "dataset"]).assign(split="val")
    if split and "held_out" in split:
        learnt = learnt[learnt.dataset != split["held_out"]]
    if train_on := base["data"].get("train_on"):
        learnt = learnt[learnt.dataset.isin([train_on] if isinstance(train_on, str) else train_on)]
    learnt.to_csv(folder / "split.csv", index=False)
    if finished:
        (folder / "predictions").mkdir()
        val.to_parquet(folder / "predictions" / "val.parquet")
        test.to_parquet(folder / "predictions" / "test.parquet")
        if guesses:
            shortcuts(test, labels, **guesses).to_parquet(folder / "predictions" / "shortcuts_test.parquet")
    return folder


def two_runs(folder: Path, datasets: dict[str, int] | None = None, seeds: tuple[int, ...] = (0,), **more) -> Path:
    """Both models under these seeds, in one folder."""
    for model in ("cnn", "cnn_lstm"):
        for seed in seeds:
            write_run(folder / f"{seed}_{model}", model, seed, datasets, **more)
    return folder


def evaluate(folder: Path, out: Path | None = None, rule=None, at=None, external=None, draws=200, unsearched=()):
    """The whole evaluation without Hydra: (summary, document, folder of the report)."""
    results, skipped = collect([folder])
    require_pairs(results, hashes=external is None)
    for result in results if external else []:
        sources = {name: sheet(name) for name in result.test["dataset"].unique()}
        facts = {"excluded": 0, "copies": 0, "unsearched": [*unsearched], "sources": sources, "store": "/somewhere"}
        result.test.attrs["scored"] = facts
    models, left_out = group(results)
    out = out or folder / "report"
    study = summary.study_of(models, skipped + left_out, rule, at, out, draws, external)
    numbers = summary.summarise(study)
    return numbers, report.write(numbers, study), out
