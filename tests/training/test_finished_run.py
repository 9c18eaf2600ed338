"""train.py leaves a whole run folder, in which predictions, checkpoints and numbers agree."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from torch.optim.swa_utils import update_bn

import evaluate
import train
from lungdet.data.serving.views import views
from lungdet.errors import RunError
from lungdet.evaluation.statistics import metrics
from lungdet.machine.commands import override
from lungdet.models.cnn_lstm import CNNLSTM
from lungdet.runs import identity
from lungdet.runs.folder import Run, find_runs
from lungdet.training import fitting
from lungdet.training.averaging import LEARNING
from lungdet.training.scoring import predict_views, score
from tests.calling import CHECKOUT, output
from tests.small_runs import configured, small, trained, weights


@pytest.fixture(scope="module")
def sweep(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Run]]:
    """What the command prints that trains both models, and their runs, the CNN-LSTM's first."""
    outputs = tmp_path_factory.mktemp("sweep") / "a b=c [1] ü $x 'q'"
    printed = output(train, "-m", "model=cnn,cnn_lstm", *small(outputs, table))
    return printed, find_runs(outputs / "sweeps")


@pytest.fixture(scope="module")
def run(sweep: tuple[str, list[Run]]) -> Run:
    return sweep[1][0]


def test_the_run_folder_holds_what_later_commands_need(run: Run) -> None:
    assert run.finished
    facts = run.environment
    assert (facts["data"]["images"], facts["data"]["patients"], facts["data"]["patients_known"]) == (96, 48, True)
    assert facts["split"]["parts"].keys() == {"train", "val", "test"}
    assert facts["epochs"] == 3
    assert min(facts["fit_seconds"], facts["images_per_second"], facts["peak_memory_bytes"], facts["parameters"]) > 0
    table = pd.read_csv(run.folder / "metrics.csv")
    assert table["epoch"].tolist() == [0, 1, 2]
    measured = {f"val/{name}" for name in ("loss", "accuracy", "precision", "recall", "f1", "auroc")}
    assert measured | {"train/loss", "learning_rate", "images_per_second"} <= set(table.columns)
    assert facts["best_epoch"] == table["val/loss"].idxmin()
    assert not OmegaConf.to_yaml(run.config).count("${")


def test_predictions_cover_their_parts_once_and_the_split_file_says_the_same(run: Run) -> None:
    split = pd.read_csv(run.folder / "split.csv").set_index("image_id")["split"]
    for part in ("val", "test"):
        predictions = run.predictions(part)
        assert sorted(predictions["image_id"]) == sorted(split.index[split == part])
        assert predictions["target_abnormal"].equals(
            predictions["patient_id"].str.extract(r"(\d+)$")[0].astype(int).mod(2).astype("float32")
        )
        assert predictions["logit_abnormal"].dtype == predictions["probability_abnormal"].dtype == np.float64


def test_evaluation_finds_the_numbers_that_torchmetrics_found_in_training(run: Run) -> None:
    best = pd.read_csv(run.folder / "metrics.csv").loc[run.environment["best_epoch"]]
    predictions = run.predictions("val")
    y, p = predictions["target_abnormal"], predictions["probability_abnormal"]
    ours = {name: getattr(metrics, name) for name in ("accuracy", "precision", "recall", "f1")}
    for name, function in ours.items():
        assert function(y, p, 0.5) == pytest.approx(best[f"val/{name}"], abs=1e-6), name
    assert metrics.auroc(y, p) == pytest.approx(best["val/auroc"], abs=1e-6)


def test_evaluation_of_the_test_part_agrees_with_torchmetrics(run: Run) -> None:
    predictions = run.predictions("test")
    y, p = predictions["target_abnormal"], predictions["probability_abnormal"]
    for name in ("accuracy", "precision", "recall", "f1"):
        assert getattr(metrics, name)(y, p, 0.5) == pytest.approx(run.environment["test"][name], abs=1e-6), name
    assert metrics.auroc(y, p) == pytest.approx(run.environment["test"]["auroc"], abs=1e-6)


def test_batch_norms_statistics_are_estimated_for_the_weights_that_are_validated(run: Run) -> None:
    saved, learning = weights(run), weights(run, of=LEARNING)
    model = fitting.build_model(run)
    model.load_state_dict(saved)
    data = fitting.build_data(run.config, model)
    data.setup()
    batches, expected = [batch["image"] for batch in data.sample_dataloader(256)], {}
    for images in batches:
        update_bn([images], model.backbone)
        share = len(images) / sum(map(len, batches))
        for name, value in model.backbone.state_dict(prefix="backbone.").items():
            if "running" in name:
                expected[name] = expected.get(name, 0) + share * value
    assert len(batches) > 1
    for name, value in expected.items():
        assert torch.allclose(saved[name], value, rtol=1e-3, atol=1e-4), name
        assert not torch.allclose(learning[name], value, rtol=1e-3, atol=1e-4), name
    counts = {int(value) for name, value in saved.items() if name.endswith("tracked")}
    assert counts == {3 * len(data.train_dataloader())}, "training's batches, and no others"


def test_each_of_two_processes_estimates_from_the_batches_of_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    data = fitting.build_data(run.config, fitting.build_model(run))
    data.setup()
    alone = [batch["row"].tolist() for batch in data.sample_dataloader(33)]
    assert [len(rows) for rows in alone] == [16, 16, 2]  # a single image may have no statistics
    assert {row for rows in alone for row in rows} <= {*data.rows("train")}
    data.batch_size = 8
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        assert [batch["row"].tolist() for batch in data.sample_dataloader(33)] == alone


def test_what_learns_is_the_same_whatever_is_validated(run: Run, table: Path, tmp_path: Path) -> None:
    plain = weights(trained(configured(tmp_path, table, "model=cnn_lstm", "trainer.averaging=null")))
    assert all(torch.equal(plain[name], value) for name, value in weights(run, of=LEARNING).items())


def by_hand(run: Run, predictions: pd.DataFrame) -> np.ndarray:
    """The log-odds that a run's best weights give the images as they lie in the store."""
    model = fitting.build_model(run).eval()
    data = fitting.build_data(run.config, model)
    data.setup()
    model.load_state_dict(weights(run, "best"))
    rows = [data.manifest["image_id"].tolist().index(name) for name in predictions["image_id"]]
    with torch.no_grad():
        images = torch.from_numpy(data.store.images[rows]).unsqueeze(1) / 255
        logits = model(images, torch.ones(len(rows), dtype=torch.long)).numpy()
    return logits[:, 1] - logits[:, 0]


def test_the_views_of_an_image_are_averaged_in_validation_and_test_and_the_report_says_so(
    run: Run, tmp_path: Path
) -> None:
    model = fitting.build_model(run).eval()
    model.load_state_dict(run.weights())
    data = fitting.build_data(run.config, model)
    data.prepare_data()
    store, ids = data.store.images, data.store.manifest["image_id"].tolist()
    asked = views(flip=True, shift=0.1)
    tables = predict_views(run, asked, ["val", "test"])
    for part, table in tables.items():
        images = [store[ids.index(image_id)] for image_id in table["image_id"]]
        stacked = np.stack([[view(image) for image in images] for view in asked]).astype(np.float32) / 255
        with torch.no_grad():
            logits = [model(torch.from_numpy(batch)[:, None], torch.ones(len(images), dtype=int)) for batch in stacked]
        assert table["logit_abnormal"].to_numpy() == pytest.approx(
            np.mean([(logit[:, 1] - logit[:, 0]).numpy() for logit in logits], axis=0), abs=1e-5
        )
        own = run.predictions(part).set_index("image_id").loc[table["image_id"], "logit_abnormal"]
        assert abs(table["logit_abnormal"].to_numpy() - own.to_numpy()).max() > 1e-3
    words = ["draws=100", "efficiency=false", "views.flip=true", "views.shift=0.1"]
    output(evaluate, override("runs", run.folder), f"out={tmp_path}", *words)
    assert not (run.folder / "thresholds.json").exists()  # they are for who predicts an image as it is
    assert "the mean over 10 views of it (mirrored, moved by 0.1 of the side)" in (tmp_path / "report.md").read_text()


def test_a_sample_of_whole_training_patients_is_predicted_without_augmentation(run: Run) -> None:
    split = pd.read_csv(run.folder / "split.csv")
    training = split[split["split"] == "train"]
    sample = run.predictions("train")
    assert sample["image_id"].is_unique
    assert set(sample["image_id"]) == set(training.loc[training["patient_id"].isin(sample["patient_id"]), "image_id"])
    assert abs(len(sample) - len(run.predictions("val"))) <= 2
    assert sample["target_abnormal"].nunique() == 2
    assert sample.attrs["part"] == run.environment["split"]["parts"]["train"]["hash"]
    assert np.allclose(sample["logit_abnormal"], by_hand(run, sample), atol=1e-5)


def test_every_part_is_predicted_with_the_best_weights_where_the_last_are_others(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil_the_second_epoch(model: CNNLSTM) -> None:
        if model.current_epoch:
            model.head[-1].bias.data[0] = 1000  # everything is normal, beyond doubt

    monkeypatch.setattr(CNNLSTM, "on_train_epoch_start", spoil_the_second_epoch)
    run = trained(configured(tmp_path, table, "model=cnn_lstm", "trainer.max_epochs=2", "+degrade.noise=[0]"))
    assert run.environment["best_epoch"] == 0, "the last epoch's weights would do as well"
    for part in ("train", "val", "test", "degraded_test"):  # without noise, as it is
        predictions = run.predictions(part)
        assert np.allclose(predictions["logit_abnormal"], by_hand(run, predictions), rtol=1e-4, atol=1e-4), part


def test_the_store_that_a_run_read_is_recorded(run: Run) -> None:
    store = Path(run.environment["data"]["store"])
    assert store.is_absolute()
    assert (store / "images.npy").is_file()


def test_checkpoints_hold_weights_and_no_configuration(run: Run) -> None:
    checkpoint = torch.load(run.checkpoint("best"), weights_only=True)
    assert "hyper_parameters" not in checkpoint
    model = fitting.build_model(run)
    model.load_state_dict(checkpoint["state_dict"])


def test_the_best_checkpoint_is_the_epoch_of_the_lowest_validation_loss(run: Run) -> None:
    checkpoint = torch.load(run.checkpoint("best"), weights_only=True)
    assert checkpoint["epoch"] == run.environment["best_epoch"]
    assert torch.load(run.checkpoint("last"), weights_only=True)["epoch"] == 2


def test_the_hashes_of_the_split_travel_with_checkpoint_and_predictions(run: Run) -> None:
    split = run.environment["split"]
    carried = torch.load(run.checkpoint("best"), weights_only=True)["TableDataModule"]
    assert carried["split"] == split["hash"]
    assert carried["parts"]["test"] == split["parts"]["test"]["hash"] == run.predictions("test").attrs["part"]


def test_a_finished_run_scores_other_images_and_leaves_out_patients_it_knows(run: Run, table: Path, caplog) -> None:
    scored = score(run, run.config.data)
    test = run.predictions("test")
    assert sorted(scored["image_id"]) == sorted(test["image_id"])
    both = test.merge(scored, on="image_id")
    assert np.allclose(both["logit_abnormal_x"], both["logit_abnormal_y"], atol=1e-5)
    assert "are left out" in caplog.text


def test_scoring_images_prepared_otherwise_is_refused(run: Run) -> None:
    other = OmegaConf.merge(run.config.data, {"image_size": 64})
    with pytest.raises(RunError, match=r"data\.image_size=32, and data\.image_size=64"):
        score(run, other)


def test_the_front_door_trains_from_the_command_line(sweep: tuple[str, list[Run]]) -> None:
    printed, runs = sweep
    assert "precision" in printed
    assert "Launching 2 jobs" in printed
    assert "[HYDRA]" not in printed  # between jobs lines are as they are within
    hashes = [identity.fingerprint(run.config)[:8] for run in runs]
    assert [run.name for run in runs] == [f"cnn_lstm_seed0_{hashes[0]}", f"cnn_seed0_{hashes[1]}"]
    assert all(run.finished for run in runs)
    pasted = re.findall(r"evaluate with: python evaluate\.py (.*)", printed)[0]
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {pasted}"], capture_output=True, text=True, check=True)
    assert str(runs[1].folder.parent) + "\n" in output(
        evaluate, *words.stdout.splitlines(), "--cfg", "job", "--package", "runs"
    )


@pytest.mark.slow
def test_jobs_of_a_process_of_its_own_are_runs_of_their_own_on_a_dashboard(table: Path, tmp_path: Path) -> None:
    words = ["-m", "model=cnn,cnn_lstm", *small(tmp_path, table), "trainer.max_epochs=1", "logger=wandb"]
    done = subprocess.run([sys.executable, "train.py", *words], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"evaluate with: {sys.executable} evaluate.py " in done.stdout
    assert [run.finished for run in find_runs(tmp_path)] == [True, True]
    assert len(list(tmp_path.glob("sweeps/*/*/wandb/offline-run-*"))) == 2


def test_a_run_predicts_from_what_is_not_the_lungs_too(run: Run) -> None:
    guesses = pd.read_parquet(run.folder / "predictions" / "shortcuts_test.parquet")
    assert {"thumbnail", "border"} <= set(guesses["shortcut"])
    assert set(guesses["image_id"]) == set(run.predictions("test")["image_id"])
