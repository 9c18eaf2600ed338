"""Weights & Biases: a run reads as its team would set it up, is waited for briefly, and never stops training."""

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lungdet.errors import InputError
from lungdet.models.cnn_lstm import CNNLSTM
from lungdet.runs import starting
from lungdet.runs.folder import Run, load_run
from lungdet.training import columns, fitting
from lungdet.training import wandb as tracking
from lungdet.training.wandb import Curves, settings_of, wandb_logger
from tests.calling import CHECKOUT
from tests.wandb_files import Recorded, recorded

LOGGER = OmegaConf.to_container(OmegaConf.load(CHECKOUT / "conf/logger/wandb.yaml"))


@pytest.fixture(scope="module")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of a multirun, logged offline; its second epoch, the last, is spoilt."""
    sweep = tmp_path_factory.mktemp("sweeps") / "monday"
    sweep.mkdir()
    (sweep / "multirun.yaml").touch()
    words = (
        "model=cnn_lstm", "model.shuffle=true", "data=table", f"data.table={table}", "data.image_size=32",
        "data.batch_size=16", "data.num_workers=0", "trainer.precision=32-true", "trainer.max_epochs=2",
        "trainer.accumulate_grad_batches=2", "experiment=[]", "logger.tags=[quick]", "logger.log_every_n_steps=2",
        f"outputs={sweep.parent}", f"run_dir={sweep}/shuffled_seed0",
    )  # fmt: skip
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        config = compose("train", [*words])

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
    assert tracking._identity(Run(trained.folder, changed), settings)["job_type"] == "search"
    of_its_own = LOGGER | {"entity": "clinic", "group": "g", "job_type": "j", "name": "n", "notes": "why"}
    identity = tracking._identity(trained, settings_of(OmegaConf.create(of_its_own)))
    assert {key: identity[key] for key in ("entity", "group", "job_type", "name", "notes")} == {
        "entity": "clinic", "group": "g", "job_type": "j", "name": "n", "notes": "why",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"base_url": "http://127.0.0.1:1"}}, r"^logger\.settings=.*no such key"),
        ({"tags": "quick"}, r"^logger\.tags=quick: a list"),
        ({"log_every_n_steps": 0}, r"^logger\.log_every_n_steps=0"),
    ],
)
def test_a_key_that_each_run_has_of_its_own_and_a_value_that_cannot_be_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings_of(OmegaConf.create(LOGGER | change))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that is to be logged and has not begun."""
    OmegaConf.save(OmegaConf.create({"logger": LOGGER, "sweep": {}, "model": {}}), tmp_path / "config.yaml")
    Run(tmp_path).record(started="2026-01-01T00:00:00+00:00")
    monkeypatch.setattr(columns, "setting", lambda _: {})
    monkeypatch.setattr(columns, "tags", lambda _: [])
    return Run(tmp_path)


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key anywhere, no mode set, nothing remembered from an earlier test."""
    import wandb

    wandb.teardown()
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[http.server.BaseHTTPRequestHandler]]:
    """A server at WANDB_BASE_URL that answers requests for pages, and hangs up on everything else."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listening.server_port}")
    monkeypatch.setattr(tracking, "ANSWER", 600)  # on a busy machine it may come late
    yield Handler
    listening.shutdown()


def test_a_failing_job_closes_its_run_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(ZeroDivisionError), wandb_logger(run):
        1 / 0  # noqa: B018
    assert wandb.run is None


def test_without_a_project_there_is_no_logger(run: Run) -> None:
    OmegaConf.save(OmegaConf.create({"logger": {"project": None}}), run.folder / "config.yaml")
    with wandb_logger(run) as logger:
        assert logger is None


@pytest.mark.usefixtures("no_settings")
def test_without_a_key_it_is_offline_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert tracking._mode() == "offline"
    assert "no key is configured" in caplog.text


@pytest.mark.usefixtures("no_settings", "server")
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


@pytest.mark.usefixtures("no_settings", "server")
def test_a_server_that_answers_but_cannot_start_a_run_means_offline(run, monkeypatch, caplog) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr(tracking, "PATIENCE", 2)
    with wandb_logger(run) as logger:
        assert logger.experiment.settings.mode == "offline"
    assert "did not start" in caplog.text
