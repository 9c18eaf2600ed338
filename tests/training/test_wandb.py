"""Weights & Biases: a run reads as its team would set it up, is waited for briefly, and never stops training."""

import json
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lungdet.errors import InputError
from lungdet.findings import FINDINGS
from lungdet.models.cnn_lstm import CNNLSTM
from lungdet.runs import starting
from lungdet.runs.folder import Run, load_run
from lungdet.training import artifacts, charts, dashboards, fitting
from lungdet.training import wandb as tracking
from lungdet.training.dashboards import Curves
from lungdet.training.wandb import connected, settings_of
from tests.calling import CHECKOUT
from tests.fake_runs import predictions
from tests.fake_wandb import Server, standing_in
from tests.small_runs import configured
from tests.wandb_files import Recorded, recorded

LOGGER = OmegaConf.to_container(OmegaConf.load(CHECKOUT / "conf/logger/wandb.yaml"))


@pytest.fixture(scope="module")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of a multirun, logged offline, with all that can be asked for; its second epoch, the last, is spoilt."""
    sweep = tmp_path_factory.mktemp("sweeps") / "monday"
    sweep.mkdir()
    (sweep / "multirun.yaml").touch()
    words = (
        f"run_dir={sweep}/shuffled_seed0", "model=cnn_lstm", "model.shuffle=true", "trainer.max_epochs=2",
        "trainer.accumulate_grad_batches=2", "experiment=[]", "logger=wandb", "logger.tags=[quick]",
        "logger.log_every_n_steps=2", "logger.log_patients=images", "logger.log_model=best",
    )  # fmt: skip
    config = configured(sweep.parent, table, *words)

    def spoil_the_second_epoch(model: CNNLSTM) -> None:
        if model.current_epoch:
            model.head[-1].bias.data[0] = 1000  # everything is normal, beyond doubt

    with pytest.MonkeyPatch.context() as patch, starting.start(config, ["experiment=[paper,smoke]"]) as run:
        patch.setenv("WANDB_MODE", "offline")
        patch.setattr(CNNLSTM, "on_train_epoch_start", spoil_the_second_epoch)
        fitting.train(run)
    return load_run(run.folder)


@pytest.fixture(scope="module")
def sent(trained: Run) -> Recorded:
    return recorded(trained.folder)


def test_a_run_is_filed_under_its_multirun_by_job_model_and_experiment(trained: Run, sent: Recorded) -> None:
    run = sent.run
    assert (run.display_name, run.run_group, run.job_type) == (trained.name, "monday", "train")
    assert [*run.tags] == ["cnn_lstm_shuffled", "paper", "smoke", "quick"]


def test_a_run_is_compared_by_columns_that_have_names_sizes_and_hashes(trained: Run, sent: Recorded) -> None:
    config, facts = sent.config, trained.environment
    assert config["model"]["name"] == "cnn_lstm_shuffled"
    assert config["model"]["backbone"]["name"] == "ConvBackbone"
    assert config["model"]["learning_rate"] == trained.config.model.learning_rate
    assert (config["data"]["name"], config["data"]["fingerprint"]) == ("table", facts["data"]["fingerprint"])
    assert (config["split"]["name"], config["split"]["hash"]) == ("random", facts["split"]["hash"])
    assert config["split"]["test"]["hash"] == facts["split"]["parts"]["test"]["hash"]
    assert (config["images"], config["patients"]) == (96, 48)
    assert (config["parameters"], config["precision"]) == (facts["parameters"], "32-true")
    assert config["hardware"]["device"] == facts["hardware"]["device"]
    assert not {"logger", "outputs", "run_dir", "resume", "trust"} & config.keys()


def test_the_axis_is_the_epoch_of_what_is_measured_once_an_epoch_and_else_the_step(sent: Recorded) -> None:
    axes = {name: metric.step_metric for name, metric in sent.metrics.items()}
    once = {"train/loss", "val/loss", "val/accuracy", "val/auroc", "val/f1", "val/precision", "val/recall"}
    assert {name for name, axis in axes.items() if axis == "epoch"} == once | {"learning_rate", "images_per_second"}
    assert axes["step/*"] == "trainer/global_step"
    assert (sent.metrics["val/loss"].summary.min, sent.metrics["val/auroc"].summary.max) == (True, True)


def test_curves_have_the_points_that_training_made_and_no_others(trained: Run, sent: Recorded) -> None:
    epochs = trained.epochs
    for name in ("val/loss", "val/auroc", "train/loss", "learning_rate", "images_per_second"):
        points = [(row["epoch"], row[name]) for row in sent.history if name in row]
        assert points == [*zip(epochs["epoch"], epochs[name].map(pytest.approx), strict=True)], name
    steps = [row for row in sent.history if "step/loss" in row]
    assert [row["trainer/global_step"] for row in steps] == [0, 2, 4]
    assert all(row["step/gradient_norm"] > 0 and row["step/learning_rate"] == 1e-3 for row in steps)
    assert 0.5 < steps[0]["step/loss"] < 0.9, "an untrained network's, log 2, of one whole batch"
    assert not [name for row in sent.history for name in row if name.startswith("test/")]


def test_the_summary_has_the_best_of_each_metric_what_was_measured_at_the_best_epoch_and_the_test_part_once(
    trained: Run, sent: Recorded
) -> None:
    epochs, summary, facts = trained.epochs, sent.summary, trained.environment
    assert summary["best_epoch"] == facts["best_epoch"] == 0
    assert summary["val/loss"] == {"min": pytest.approx(epochs["val/loss"].min())}
    assert summary["val/recall"] == {"max": pytest.approx(epochs["val/recall"].max())}
    assert summary["best/val/auroc"] == pytest.approx(epochs["val/auroc"][0])
    assert {name: summary[f"test/{name}"] for name in facts["test"]} == pytest.approx(facts["test"])
    assert summary["cost/fit_seconds"] == facts["fit_seconds"]


def test_the_tested_run_has_charts_tables_of_patients_where_asked_for_and_what_augmentation_makes(
    trained: Run, sent: Recorded
) -> None:
    media = {name: value for row in sent.history for name, value in row.items() if "." in name}
    kinds = ("confusion", "roc", "pr", "calibration", "probability")
    logged = {name.partition(".")[0] for name in media}
    assert logged == {f"{kind}/abnormal_table" for kind in kinds} | {"mistakes", "sample", "augmentation"}
    assert (media["augmentation.count"], media["augmentation.width"]) == (charts.AUGMENTED, 2 * 32)
    assert media["mistakes.ncols"] == media["sample.ncols"] == len(charts.COLUMNS) + 1
    assert media["sample.nrows"] == min(len(trained.predictions("test")), charts.LISTED)


def test_split_predictions_and_weights_are_artifacts_that_link_runs(trained: Run, sent: Recorded) -> None:
    kinds = {artifact.type: artifact for artifact in sent.artifacts if artifact.type != "run_table"}
    used = {kind: artifact.use_after_commit for kind, artifact in kinds.items()}
    assert used == {"split": True, "predictions": False, "model": False}
    assert kinds["split"].name == f"split-{trained.environment['split']['hash']}"
    assert "best" in kinds["model"].aliases
    assert json.loads(kinds["model"].metadata)["epoch"] == 0


def test_by_itself_no_row_radiograph_or_checkpoint_leaves_the_machine(trained: Run) -> None:
    class Started:
        def __init__(self) -> None:
            self.logged, self.artifacts, self.summary = {}, [], {}

        def log(self, values: dict) -> None:
            self.logged |= values

        def log_artifact(self, artifact: object) -> None:
            self.artifacts.append(artifact)

    quiet = OmegaConf.merge(trained.config, {"logger": LOGGER})
    model = fitting.build_model(trained)
    logger = Curves(experiment=Started())
    dashboards.conclude(logger, Run(trained.folder, quiet), fitting.build_data(quiet, model))
    assert {name.partition("/")[0] for name in logger.experiment.logged} == {
        "confusion", "roc", "pr", "calibration", "probability",
    }  # fmt: skip
    [artifact] = logger.experiment.artifacts
    assert {name: entry.ref for name, entry in artifact.manifest.entries.items()} == {
        f"{part}.parquet": (trained.folder / "predictions" / f"{part}.parquet").as_uri() for part in ("val", "test")
    }


def test_mistakes_come_surest_first_and_a_sample_is_the_same_whatever_was_predicted() -> None:
    table = predictions({"chestxray14": 60})
    wrong = charts.mistakes(table, ["abnormal"]).get_dataframe()
    assert (wrong["labelled"] != (wrong["probability"] >= 0.5)).all()
    assert (wrong["probability"] - 0.5).abs().is_monotonic_decreasing
    samples = [charts.sample(predictions({"chestxray14": 60}, draw=i), ["abnormal"]).get_dataframe() for i in (0, 1)]
    assert [*samples[0]["image"]] == [*samples[1]["image"]]
    assert [*samples[0]["probability"]] != [*samples[1]["probability"]]


def test_charts_are_of_each_finding_that_has_both_classes() -> None:
    table = predictions({"chestxray14": 60}, labels=FINDINGS)
    kinds = {name.partition("/")[2] for name in charts.charts(table, FINDINGS)}
    assert kinds == {"effusion", "nodule"}


def test_a_metric_that_is_undefined_for_an_epoch_is_a_gap_in_its_curve() -> None:
    class Experiment:
        rows = []

        def log(self, row: dict) -> None:
            self.rows.append(row)

    Curves(experiment=Experiment()).log_metrics({"val/precision": float("nan"), "val/recall": 0.0, "epoch": 0}, 3)
    assert Experiment.rows == [{"val/recall": 0.0, "epoch": 0, "trainer/global_step": 3}]


def test_a_searchs_run_and_what_the_configuration_says_itself(trained: Run) -> None:
    changed = OmegaConf.merge(trained.config, {"sweep": {"trials": 3}})
    settings = settings_of(trained.config.logger)
    assert dashboards._identity(Run(trained.folder, changed), settings)["job_type"] == "search"
    of_its_own = LOGGER | {"entity": "clinic", "group": "g", "job_type": "j", "name": "n", "notes": "why"}
    identity = dashboards._identity(trained, settings_of(OmegaConf.create(of_its_own)))
    assert {key: identity[key] for key in ("entity", "group", "job_type", "name", "notes")} == {
        "entity": "clinic", "group": "g", "job_type": "j", "name": "n", "notes": "why",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"base_url": "http://127.0.0.1:1"}}, r"^logger\.settings: the keys of logger=wandb"),
        ({"tags": "quick"}, r"^logger\.tags=quick: a list"),
        ({"log_every_n_steps": 0}, r"^logger\.log_every_n_steps=0"),
        ({"log_patients": "all"}, r"^logger\.log_patients=all: null or rows or images is needed"),
        ({"log_model": True}, r"^logger\.log_model=True: null or best is needed"),
    ],
)
def test_a_key_that_each_run_has_of_its_own_and_a_value_that_cannot_be_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings_of(OmegaConf.create(LOGGER | change))


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key anywhere, no mode set, nothing remembered from an earlier test."""
    import wandb

    wandb.teardown()
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def server(no_settings: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with standing_in() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.address)
        monkeypatch.setattr(tracking, "ANSWER", 600)  # on a busy machine it may come late
        yield server


def test_a_failing_job_closes_its_run_too_and_an_offline_run_says_how_it_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    caplog.set_level("INFO")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(ZeroDivisionError), connected({"dir": tmp_path}):
        1 / 0  # noqa: B018
    assert wandb.run is None
    assert f"sent later with: wandb sync {tmp_path}/wandb/offline-run-" in caplog.text


def test_without_a_project_there_is_no_logger(tmp_path: Path) -> None:
    with dashboards.dashboard(Run(tmp_path, OmegaConf.create({"logger": {"project": None}})), None) as logger:
        assert logger is None


@pytest.mark.usefixtures("no_settings")
def test_without_a_key_it_is_offline_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert tracking._mode() == "offline"
    assert "no key is configured" in caplog.text


@pytest.mark.usefixtures("server")
def test_a_key_in_netrc_counts(tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1\n login user\n password secret\n")
    assert tracking._mode() == "online"


@pytest.mark.usefixtures("no_settings")
def test_a_server_that_cannot_be_reached_means_offline(monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:  # bound, never listening
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        assert tracking._mode() == "offline"
    assert "cannot be reached" in caplog.text


@pytest.mark.parametrize("behaviour", ["hangs", "refuses", "halves"])
def test_a_server_that_answers_but_cannot_start_a_run_means_offline(
    server: Server, behaviour: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.behaviour = behaviour
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(tracking, "STARTING", 1)
    with connected({"dir": tmp_path}) as started:
        assert started.settings.mode == "offline"
    assert "did not start" in caplog.text


def logged(folder: Path) -> Iterator[None]:
    """Tell a dashboard of a metric, and going on of a table and an artifact."""
    import wandb

    artifact = wandb.Artifact("split-1", "split")
    artifact.add_reference((CHECKOUT / "Makefile").as_uri())
    with connected({"dir": folder, "id": "run", "project": "lungdet", "resume": "allow"}) as started:
        started.log({"val/loss": 0.5})
        yield
        started.log({"mistakes": wandb.Table(["image"], [["a"]])})
        artifacts.use(started, artifact)


def test_a_server_that_answers_is_sent_everything(server: Server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(tracking, "STARTING", 600)
    monkeypatch.setattr(tracking, "FINISHING", 600)
    list(logged(tmp_path))
    assert [row["val/loss"] for row in server.history if "val/loss" in row] == [0.5]
    names = [asked["input"]["artifactCollectionName"] for name, asked in server.operations if name == "CreateArtifact"]
    assert sorted(names) == ["run-run-mistakes", "split-1"]


@pytest.mark.slow
def test_a_server_that_goes_silent_delays_nobody_and_what_it_did_not_take_can_be_sent_later(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    steps = logged(tmp_path)
    monkeypatch.setattr(tracking, "STARTING", 600)
    next(steps)
    server.behaviour = "hangs"
    begun = time.monotonic()
    list(steps)
    assert time.monotonic() - begun < 20
    assert wandb.run is None
    command = caplog.text.partition("send it with: ")[2].splitlines()[0]
    sent = recorded(tmp_path)
    assert [artifact.name for artifact in sent.artifacts] == ["run-run-mistakes", "split-1"]
    server.behaviour = None
    subprocess.run([sys.executable, "-m", *shlex.split(command)], cwd=tmp_path, check=True)
    assert 0.5 in [row.get("val/loss") for row in server.history]
