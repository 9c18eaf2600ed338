"""The models learn what is there, and nothing where nothing is: minutes, so `make test-slow`."""

import json
import subprocess
import sys
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CHECKOUT
from hydra import compose, initialize_config_dir
from sklearn.metrics import roc_auc_score

import train
from lungdet import hardware, starting
from lungdet.runs import Run, load_run

pytestmark = pytest.mark.slow
MODELS = ("cnn", "cnn_lstm")
HALF = {"chestxray14": 400, "montgomery": 200, "shenzhen": 200}
READERS = (*MODELS, "cnn_lstm_shuffled", "cnn_mlp", "length_only")


def configured(folder: Path, *changes: str):
    paths = [f"outputs={folder.parent}", f"run_dir={folder}", "logger=csv"]
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        return compose("train", [*paths, *changes])


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all, so that phantoms are drawn and prepared once."""
    torch.set_num_threads(2)  # the suite runs with one
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module", params=MODELS)
def demo(request: pytest.FixtureRequest, outputs: Path) -> Run:
    """What `make demo` trains."""
    config = configured(outputs / f"demo_{request.param}", "experiment=demo", f"model={request.param}", "logger=csv")
    with starting.start(config) as run:
        train.train(run)
    return load_run(run.folder)


def auroc(run: Run) -> float:
    predictions = run.predictions("test")
    return roc_auc_score(predictions["target_abnormal"], predictions["probability_abnormal"])


def test_the_demos_models_find_disease_on_held_out_phantoms(demo: Run) -> None:
    assert auroc(demo) >= 0.85


@pytest.mark.parametrize("model", MODELS)
def test_permuted_labels_teach_nothing(model: str, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's own budget; the best epoch is chosen by permuted labels too, the test's labels are the true ones."""
    config = configured(outputs / f"permuted_{model}", "experiment=demo", f"model={model}")
    with starting.start(config) as run:
        lightning.seed_everything(run.config.seed, verbose=False)
        network = train.build_model(run)
        data = train.build_data(run.config, network)
        data.setup()
        split = data.split
        monkeypatch.setattr(data, "_split", lambda: split)  # fit sets up again, and would draw by the permuted labels
        manifest, rng = data.store.manifest, np.random.default_rng(0)
        labels = manifest["abnormal"].to_numpy(copy=True)
        for part in ("train", "val"):
            rows = data.rows(part)
            labels[rows] = rng.permutation(labels[rows])
        true, manifest["abnormal"] = manifest["abnormal"].copy(), labels  # where the loaders take their targets from
        trainer = train.build_trainer(run, network, hardware.choose("auto", "auto"))
        trainer.fit(network, data)
        train.predict(run, trainer, network, data)
    test = data.rows("test")
    assert (data.store.manifest["abnormal"].to_numpy() == labels).all(), "the loaders had other labels"
    assert (labels[test] == true.to_numpy()[test]).all()
    assert (labels != true.to_numpy()).mean() > 0.3
    assert 0.4 <= auroc(run) <= 0.6


@pytest.mark.parametrize("model", MODELS)
def test_both_models_overfit_32_real_radiographs(model: str, outputs: Path, real_data: Path) -> None:
    choices = ["data=chestxray14", f"data.root={real_data}/ChestX-ray14", "data.image_size=112", "augment=none"]
    config = configured(
        outputs / f"overfit_{model}",
        *choices,
        f"model={model}",
        "model.dropout=0",
        "trainer.max_epochs=100",
        "trainer.early_stopping=null",
    )
    with starting.start(config) as run:
        network = train.build_model(run)
        data = train.build_data(run.config, network)
        data.prepare_data()
        labels = data.store.manifest["abnormal"]
        rows = np.concatenate([np.flatnonzero(labels == value)[:16] for value in (0, 1)])
        loader = data.loader(rows, training=True)
        trainer = train.build_trainer(run, network, hardware.choose("auto", "auto"))
        trainer.fit(network, loader, data.loader(rows, training=False))
    accuracy = pd.read_csv(run.folder / "metrics.csv")["val/accuracy"]
    assert accuracy.iloc[-1] == 1.0


@pytest.mark.parametrize(("signal", "epochs", "helps"), [("order", 30, True), ("findings", 8, False)])
def test_the_recurrence_is_said_to_help_where_the_order_of_visits_tells_and_not_where_one_image_does(
    signal: str, epochs: int, helps: bool, outputs: Path
) -> None:
    """`experiment=temporal` with half the patients and one seed; the whole of it is `make experiments`."""
    folder = outputs / f"temporal_{signal}"
    small = [f"data.patients.{source}={patients}" for source, patients in HALF.items()]
    choices = [f"data.signal={signal}", f"model={','.join(READERS)}", "seed=0", f"trainer.max_epochs={epochs}", *small]
    start = f"model.backbone.init_from={outputs}/temporal_backbone"  # the same for both
    where = [f"outputs={outputs}", f"hydra.sweep.dir={folder}", "logger=csv", start]
    command = [sys.executable, "train.py", "experiment=temporal", *choices, *where]
    done = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    found = json.loads((folder / "report" / "metrics.json").read_text())
    areas = {one["settings"]["role"]: one["test"]["auroc"] for one in found["models"].values()}
    assert set(areas) == set(READERS)
    (recurrence,) = found["recurrence"]
    assert recurrence["helps"] is helps
    said = "The recurrence helps, for these very runs" if helps else "No effect of the recurrence is shown"
    assert said in (folder / "report" / "report.md").read_text()
    seeing = {"cnn_lstm"} if helps else {"cnn", "cnn_lstm", "cnn_lstm_shuffled", "cnn_mlp"}
    assert min(areas[name] for name in seeing) >= 0.9
    assert max(abs(areas[name] - 0.5) for name in set(READERS) - seeing) <= 0.1
