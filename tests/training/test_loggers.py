"""MLflow and TensorBoard show the curves of metrics.csv and what a run came to, and stop no training."""

from pathlib import Path

import pytest
from lightning.pytorch.loggers.logger import DummyLogger
from omegaconf import OmegaConf

import evaluate
from lungdet.errors import InputError
from lungdet.instantiation import instantiate
from lungdet.runs.folder import Run
from lungdet.training import loggers
from lungdet.training.loggers import Harmless
from tests.calling import call, composed
from tests.small_runs import configured, trained


def logged(logger: str, table: Path, *words: str) -> Run:
    paths = (f"logger={logger}", f"run_dir={table.parent}/{logger}")
    return trained(configured(table.parent, table, *paths, *words), *words)


def curve(run: Run, name: str) -> dict[int, float]:
    """A column of metrics.csv by epoch."""
    return run.epochs.set_index("epoch")[name].to_dict()


def test_tensorboard_has_each_epochs_metrics_the_steps_and_the_test_part(table: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = logged("tensorboard", table, "trainer.max_epochs=2", "logger.log_every_n_steps=2")
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    for name in ("val/loss", "val/auroc", "train/loss", "learning_rate"):
        points = {event.step: event.value for event in events.Scalars(name)}
        assert points == pytest.approx(curve(run, name), rel=1e-6), name
    assert [event.step for event in events.Scalars("step/gradient_norm")] == [0, 2, 4, 6, 8]
    assert [event.value for event in events.Scalars("test/auroc")] == pytest.approx([run.environment["test"]["auroc"]])


def test_a_servers_password_is_kept_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    null = Run(tmp_path, composed("train", "logger=mlflow", f"outputs={tmp_path}"))
    named = Run(tmp_path, composed("train", "logger=mlflow", "logger.lightning.tracking_uri=${oc.env:SERVER}"))
    assert loggers._places(null)["tracking_uri"] == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://server")
    assert loggers._places(null)["tracking_uri"] == "https://server"
    for variable, run in (("MLFLOW_TRACKING_URI", null), ("SERVER", named)):
        monkeypatch.setenv(variable, "https://me:secret@server")
        with (
            pytest.raises(InputError, match=r"^logger\.lightning\.tracking_uri: a user or password") as caught,
            loggers.curves(run),
        ):
            pass
        assert "secret" not in str(caught.value)


@pytest.mark.slow
def test_mlflow_has_the_same_of_a_run_that_was_resumed_in_one_run(table: Path) -> None:
    from mlflow import MlflowClient

    run = logged("mlflow", table, "trainer.max_epochs=1")
    run = logged("mlflow", table, f"resume={run.folder}", "trainer.max_epochs=2")
    client = MlflowClient(f"sqlite:///{table.parent}/mlflow.db")
    [filed] = client.search_runs([client.get_experiment_by_name("lungdet").experiment_id])
    assert (filed.info.run_name, filed.info.status) == (run.name, "FINISHED")
    assert filed.data.params["model/name"] == "cnn"
    assert filed.data.metrics["test/auroc"] == pytest.approx(run.environment["test"]["auroc"])
    points = {metric.step: metric.value for metric in client.get_metric_history(filed.info.run_id, "val/loss")}
    assert points == pytest.approx(curve(run, "val/loss"))


class Gone(DummyLogger):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def log_metrics(self, *_: object, **__: object) -> None:
        self.calls += 1
        raise ConnectionError("no route to host")


def test_a_server_that_has_gone_is_named_once_and_asked_no_more(caplog: pytest.LogCaptureFixture) -> None:
    gone = Gone()
    logger = Harmless(gone)
    for step in range(3):
        logger.log_metrics({"val/loss": 0.5}, step)
    logger.finalize("success")
    assert gone.calls == 1
    assert [record.message for record in caplog.records] == [
        "Gone takes no more, metrics.csv goes on: ConnectionError: no route to host"
    ]


def test_a_value_that_is_no_number_is_a_gap_and_an_epochs_stands_at_its_epoch() -> None:
    logged = []
    logger = DummyLogger()
    logger.log_metrics = lambda values, step: logged.append((values, step))
    Harmless(logger).log_metrics({"epoch": 3, "val/loss": 0.5, "val/precision": float("nan")}, step=40)
    assert logged == [({"val/loss": 0.5}, 3)]


def test_a_logger_of_another_package_is_not_taken_from_a_configuration() -> None:
    with pytest.raises(InputError, match="run code of the package subprocess"):
        instantiate("logger.lightning", OmegaConf.create({"_target_": "subprocess.Popen"}))


def test_a_report_goes_to_weights_and_biases_alone(tmp_path: Path) -> None:
    done = call(evaluate, f"runs={tmp_path}", "logger=mlflow")
    assert done.returncode == 1
    assert "logger=mlflow: reports go to Weights & Biases alone; say logger=wandb, or leave it out\n" in done.stderr
