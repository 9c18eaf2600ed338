"""What docs/dashboards.md has a reader type, and what an agent of a sweep types, are configurations."""

import re
import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lungdet.runs.folder import Run
from lungdet.training import columns, dashboards
from lungdet.training.wandb import settings_of
from tests.calling import CHECKOUT, composed

PAGE = (CHECKOUT / "docs/dashboards.md").read_text()
COMMANDS = re.findall(r"^(?:\w+=\w+ )?python (train|evaluate)\.py (.*)$", PAGE, flags=re.MULTILINE)
SWEEP = OmegaConf.to_container(OmegaConf.load(CHECKOUT / "conf/wandb_sweep.yaml"), resolve=False)


@pytest.mark.parametrize(("program", "line"), COMMANDS)
def test_a_command_of_the_page_is_a_configuration_and_logs(program: str, line: str) -> None:
    words = [word for word in shlex.split(line, comments=True) if word != "-m"]
    single = [re.sub(r"^(model|seed)=(\w+),.*", r"\1=\2", word) for word in words]
    logger = composed(program, *single).logger
    assert logger.lightning if "lightning" in logger else settings_of(logger).project


def test_the_page_is_short_and_its_commands_are_seen_above() -> None:
    assert len(PAGE.splitlines()) <= 120
    assert len(COMMANDS) == 7


def test_an_agent_of_a_sweep_runs_train_with_what_it_is_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    suggested = [f"{key}={space['min']}" for key, space in SWEEP["parameters"].items()]
    at = SWEEP["command"].index("${program}") + 1
    words = [*SWEEP["command"][at:-1], *suggested]
    assert SWEEP["command"][-1] == "${args_no_hyphens}"
    config = composed("train", *words)
    assert [OmegaConf.select(config, key) for key in SWEEP["parameters"]] == [
        space["min"] for space in SWEEP["parameters"].values()
    ]
    assert config.logger.job_type == "search"
    monkeypatch.setattr(columns, "setting", lambda _: {})
    monkeypatch.setattr(columns, "tags", lambda _: [])
    monkeypatch.setattr(dashboards.artifacts, "identifier", lambda _: "its-own")
    run = Run(Path("outputs/run"), OmegaConf.create({"sweep": None}))
    for names, chosen in (({"WANDB_RUN_ID": "a"}, "its-own"), ({"WANDB_RUN_ID": "a", "WANDB_SWEEP_ID": "s"}, "a")):
        with monkeypatch.context() as patch:
            for name, value in names.items():
                patch.setenv(name, value)
            assert dashboards._identity(run, settings_of(config.logger))["id"] == chosen
