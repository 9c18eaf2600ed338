"""What the searches of a multirun suggest is printed together at its end."""

import logging
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lungdet.runs import suggestions
from lungdet.runs.suggestions import Suggestion
from lungdet.sweeps import suggesting


def printed(jobs: list[list[str]], folder: Path, patch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> str:
    patch.setattr(suggesting, "planned", lambda config: jobs)
    caplog.clear()
    with caplog.at_level(logging.INFO, "lungdet.sweeps.suggesting"):
        hydra = {"sweep": {"dir": str(folder)}, "overrides": {"task": ["find=lr", "model=cnn,cnn_lstm"]}}
        config = OmegaConf.create({"find": {"learning_rate": {}}, "hydra": hydra})
        callback = suggesting.Suggestions()
        callback.on_multirun_start(config)
        callback.on_multirun_end(config)
    return "\n".join(caplog.messages)


def test_each_search_of_several_has_a_line_that_says_which_it_is_and_what_it_suggests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [["find=lr", f"model={model}", "seed=0"] for model in ("cnn", "cnn_lstm", "[a b]")]
    for job, rate in zip(jobs[:2], (1e-3, 2e-4), strict=True):
        folder = tmp_path / job[1]
        folder.mkdir()
        suggestions.write(folder, Suggestion((*reversed(job),), f"model.learning_rate={rate}"))
    assert printed(jobs, tmp_path, monkeypatch, caplog).splitlines() == [
        "suggested:",
        "  model=cnn: model.learning_rate=0.001",
        "  model=cnn_lstm: model.learning_rate=0.0002",
        "  'model=[a b]': nothing",
    ]
    assert printed(jobs[:1], tmp_path, monkeypatch, caplog) == ""  # it has just said so itself
    assert printed(jobs, tmp_path / "none", monkeypatch, caplog) == ""  # refused, or interrupted
