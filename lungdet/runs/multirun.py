"""Sweep: which jobs a multirun was to run, and which of them left no run in its folder."""

from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from lungdet.evaluation.gathering.results import Skipped
from lungdet.runs.folder import find_runs, load_yaml
from lungdet.runs.starting import decides

BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def never_run(folder: Path) -> list[Skipped]:
    """Jobs of the multirun in a folder that left no run there: it was cut, or they failed before they began.

    Empty where the folder is no multirun's, or a searching sweeper's, which decides as it goes.
    """
    path = folder / "multirun.yaml"
    if not path.is_file():
        return []
    # Unresolved: what it refers to would be filled in from this machine.
    hydra = OmegaConf.to_container(load_yaml(path), resolve=False)["hydra"]
    if hydra["sweeper"]["_target_"] != BASIC:
        return []
    said = [f"{key}={value}" for key, value in (hydra["sweeper"]["params"] or {}).items()] + hydra["overrides"]["task"]
    [jobs] = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(said), None)
    there = [_deciding(said) for run in find_runs(folder) for said in run.asked]
    return [
        Skipped(folder / str(number), f"job {number} of the multirun left no run: {' '.join(_varying(jobs, job))}")
        for number, job in enumerate(jobs)
        if _deciding(job) not in there
    ]


def _deciding(overrides: list[str]) -> list[str]:
    return sorted(said.lstrip("+") for said in overrides if decides(said))


def _varying(jobs: list[list[str]], job: list[str]) -> list[str]:
    """The overrides in which the jobs differ."""
    return [said.lstrip("+") for place, said in enumerate(job) if len({other[place] for other in jobs}) > 1]
