"""The models learn what is there, and nothing where nothing is: minutes, so `make test-slow`."""

import json
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.callbacks import EarlyStopping
from sklearn.metrics import roc_auc_score

import evaluate
import train
from lungdet.machine import hardware
from lungdet.runs import starting
from lungdet.runs.folder import Run, load_run
from lungdet.training import fitting
from lungdet.training.predicting import predict
from lungdet.training.trainer import build_trainer
from tests.calling import composed, output

pytestmark = pytest.mark.slow
MODELS = ("cnn", "cnn_lstm")
SMALL = ("data.image_size=32", "data.size=128", "data.masks=false", "data.num_workers=0")
FEW = "data.patients={chestxray14: 200, montgomery: 100, shenzhen: 100}"
READERS = (*MODELS, "cnn_lstm_shuffled", "cnn_mlp", "length_only")


def configured(folder: Path, *changes: str):
    paths = [f"outputs={folder.parent}", f"run_dir={folder}", "logger=csv", "data.num_workers=0"]
    return composed("train", *paths, *changes)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all, so that phantoms are drawn and prepared once."""
    return tmp_path_factory.mktemp("outputs")


def stopping(trainer: lightning.Trainer, metric: str, enough: float) -> lightning.Trainer:
    """The same trainer, which trains no further once a metric of validation has come so far."""
    trainer.callbacks.append(EarlyStopping(metric, mode="max", patience=1000, stopping_threshold=enough))
    return trainer


def trained(folder: Path, *changes: str) -> Run:
    with starting.start(configured(folder, *changes)) as run:
        fitting.train(run)
    return load_run(folder)


@pytest.fixture(scope="module")
def reader(outputs: Path) -> Run:
    """A CNN that reads small images, for others to start from."""
    return trained(outputs / "reader", "experiment=demo", "model=cnn", *SMALL, "trainer.max_epochs=15")


def auroc(run: Run) -> float:
    predictions = run.predictions("test")
    return roc_auc_score(predictions["target_abnormal"], predictions["probability_abnormal"])


@pytest.mark.parametrize("model", MODELS)
def test_the_demos_models_find_disease_on_held_out_phantoms(
    model: str, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `make demo` trains, which draws where the findings are, too, and goes on after an AUROC of .93."""
    monkeypatch.setattr(fitting, "build_trainer", lambda *facts: stopping(build_trainer(*facts), "val/auroc", 0.93))
    run = trained(outputs / f"demo_{model}", "experiment=demo", f"model={model}", "data.masks=false")
    assert auroc(run) >= 0.85


def test_permuted_labels_teach_nothing(outputs: Path) -> None:
    """The best epoch is chosen by permuted labels too, the test's labels are the true ones."""
    parts = "data.fractions=[0.5,0.1,0.4]"  # many to test on, or chance tells much; true labels reach .9
    choices = ["experiment=demo", "model=cnn_lstm", *SMALL, "trainer.max_epochs=5", parts]
    config = configured(outputs / "permuted", *choices)
    with starting.start(config) as run:
        lightning.seed_everything(run.config.seed, verbose=False)
        network = fitting.build_model(run)
        data = fitting.build_data(run.config, network)
        data.setup()
        manifest, rng = data.store.manifest, np.random.default_rng(0)
        labels = manifest["abnormal"].to_numpy(copy=True)
        for part in ("train", "val"):
            rows = data.rows(part)
            labels[rows] = rng.permutation(labels[rows])
        true, manifest["abnormal"] = manifest["abnormal"].copy(), labels  # where the loaders take their targets from
        trainer = build_trainer(run, network, hardware.choose("auto", "auto"))
        trainer.fit(network, data)
        predict(run, trainer, network, data)
    test = data.rows("test")
    assert (data.store.manifest["abnormal"].to_numpy() == labels).all(), "the loaders had other labels"
    assert (labels[test] == true.to_numpy()[test]).all()
    both = np.concatenate([data.rows("train"), data.rows("val")])
    assert (labels != true.to_numpy())[both].mean() > 0.4
    assert 0.4 <= auroc(run) <= 0.6


@pytest.mark.parametrize("model", MODELS)
def test_both_models_overfit_32_real_radiographs(
    model: str, outputs: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = ["data=chestxray14", f"data.root={real_data}/ChestX-ray14", "data.image_size=64", "augment=none"]
    config = configured(
        outputs / f"overfit_{model}",
        *choices,
        f"model={model}",
        "data.limit=100",
        "data.batch_size=8",
        "model.dropout=0",
        "schedule.patience=60",
        "trainer.max_epochs=60",
        "trainer.early_stopping=null",
    )
    with starting.start(config) as run:
        network = fitting.build_model(run)
        data = fitting.build_data(run.config, network)
        data.prepare_data()
        labels = data.store.manifest["abnormal"]
        rows = np.concatenate([np.flatnonzero(labels == value)[:16] for value in (0, 1)])
        monkeypatch.setattr(data, "rows", lambda part: rows)
        trainer = stopping(build_trainer(run, network, hardware.choose("auto", "auto")), "val/accuracy", 1)
        trainer.fit(network, data)
    assert pd.read_csv(run.folder / "metrics.csv")["val/accuracy"].iloc[-1] == 1


@pytest.mark.parametrize(("signal", "epochs", "helps"), [("order", 14, True), ("findings", 4, False)])
def test_the_recurrence_is_said_to_help_where_the_order_of_visits_tells_and_not_where_one_image_does(
    reader: Run, outputs: Path, signal: str, epochs: int, helps: bool
) -> None:
    """`experiment=temporal` with a quarter of its patients, smaller images and one seed."""
    folder = outputs / f"temporal_{signal}"
    choices = [f"data.signal={signal}", f"model={','.join(READERS)}", "seed=0", f"trainer.max_epochs={epochs}", FEW]
    start = [f"model.backbone.init_from={reader.folder}", "data.phantom_seed=1", *SMALL]  # the reader saw others
    where = [f"outputs={outputs}", f"hydra.sweep.dir={folder}", "logger=csv", "~hydra.callbacks.report"]
    output(train, "experiment=temporal", *choices, *start, *where)
    output(evaluate, f"runs={folder}", "efficiency=false", "draws=1000")
    metrics = json.loads((folder / "report" / "metrics.json").read_text())
    areas = {model["settings"]["role"]: model["test"]["auroc"] for model in metrics["models"].values()}
    assert set(areas) == set(READERS)
    (recurrence,) = metrics["recurrence"]
    assert recurrence["helps"] is helps
    sentence = "The recurrence helps, for these very runs" if helps else "No effect of the recurrence is shown"
    assert sentence in (folder / "report" / "report.md").read_text()
    seeing = {"cnn_lstm"} if helps else {"cnn", "cnn_lstm", "cnn_lstm_shuffled", "cnn_mlp"}
    assert min(areas[name] for name in seeing) >= 0.9
    assert max(abs(areas[name] - 0.5) for name in set(READERS) - seeing) <= 0.1
