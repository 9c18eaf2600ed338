"""A multirun's folder: its name, the jobs that it was to run, and which of them left no run in it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from lungdet.configuration.jobs import jobs
from lungdet.errors import RunError
from lungdet.machine import ranks
from lungdet.machine.commands import key_of
from lungdet.runs.folder import find_runs
from lungdet.runs.identity import decides
from lungdet.runs.reading import read_yaml

BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
"""What Hydra calls its own sweeper in a multirun.yaml."""


@dataclass(frozen=True)
class Job:
    """One job of the multirun in a folder, and those of its overrides in which the jobs differ."""

    multirun: Path
    number: int
    overrides: tuple[str, ...]


def sweep_folder(name: str) -> str:
    """The folder of a multirun, which is its name; the first process's, where several run the same command.

    Raises:
        RunError: shells and Hydra would take the name for something else.
    """
    name = ranks.agreed(str(name))
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
        raise RunError(f"sweep.name={name}: letters, digits, -, _ and . are taken, a dot not at the beginning")
    return name


def around(run: Path) -> Path:
    """The folder of the multirun that made a run, by which it is compared with the others; a single run's own."""
    return run.parent if (run.parent / "multirun.yaml").is_file() else run


def never_run(folder: Path) -> list[Job]:
    """Jobs of the multirun in a folder that left no run there: it was cut, or they failed before they began.

    Empty where the folder is no multirun's, or a searching sweeper's, which decides as it goes, or where its jobs were
    to train nothing (`find`).
    """
    path = folder / "multirun.yaml"
    if not path.is_file():
        return []
    # Unresolved: what it refers to would be filled in from this machine.
    hydra = OmegaConf.to_container(read_yaml(path), resolve=False)["hydra"]
    if hydra["sweeper"]["_target_"] != BASIC:
        return []
    words = [f"{key}={value}" for key, value in (hydra["sweeper"]["params"] or {}).items()] + hydra["overrides"]["task"]
    if "find" in map(key_of, words):
        return []
    planned = jobs(OverridesParser.create().parse_overrides(words))
    runs = [_deciding(words) for run in find_runs(folder) for words in run.commands]
    return [
        Job(folder, number, tuple(word.lstrip("+") for word in differing(planned, job)))
        for number, job in enumerate(planned)
        if _deciding(job) not in runs
    ]


def differing(jobs: Sequence[Sequence[str]], job: Sequence[str]) -> list[str]:
    """The overrides of a job in which it differs from another of the jobs."""
    return [word for place, word in enumerate(job) if len({words[place] for words in jobs}) > 1]


def _deciding(overrides: Sequence[str]) -> list[str]:
    return sorted(word.lstrip("+") for word in overrides if decides(word))
