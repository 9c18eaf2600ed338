"""Weights & Biases is asked for nothing, waited for briefly, and never stops training."""

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lungdet.errors import InputError
from lungdet.runs.folder import Run
from lungdet.training import wandb as tracking
from lungdet.training.wandb import wandb_logger


@pytest.fixture
def run(tmp_path: Path) -> Run:
    folder = tmp_path / "sweep" / "0_cnn_seed0"
    folder.mkdir(parents=True)
    values = {"logger": {"project": "lungdet-test", "tags": ["quick"]}, "model": {"hidden": 8}}
    OmegaConf.save(OmegaConf.create(values), folder / "config.yaml")
    (folder.parent / "multirun.yaml").touch()
    Run(folder).record(started="2026-01-01T00:00:00+00:00")
    return Run(folder)


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


def test_an_offline_run_has_name_group_tags_and_configuration_and_is_closed(run: Run, monkeypatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    with wandb_logger(run) as logger:
        experiment = logger.experiment
        assert (experiment.name, experiment.group, experiment.tags) == ("0_cnn_seed0", "sweep", ("quick",))
        assert experiment.config["model"] == {"hidden": 8}
    assert wandb.run is None
    assert list(run.folder.glob("wandb/offline-run-*/*.wandb"))


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


def test_what_is_each_runs_own_to_wandb_is_refused_by_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    stored = {"logger": {"project": "p", "settings": {"base_url": "http://127.0.0.1:1"}}, "model": {"hidden": 8}}
    OmegaConf.save(OmegaConf.create(stored), run.folder / "config.yaml")
    with pytest.raises(InputError, match=r"^logger\.settings="), wandb_logger(run):
        pass
