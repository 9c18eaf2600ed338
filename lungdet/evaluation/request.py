"""What an evaluation is asked for: which runs, on which data, and where the report goes."""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lungdet.data.manifest import short_hash
from lungdet.data.serving.views import View, name, views
from lungdet.evaluation.gathering import peers
from lungdet.evaluation.gathering.results import EvaluationError
from lungdet.evaluation.statistics import thresholds
from lungdet.page.wording import METHODS

FEWEST_DRAWS = 100
LONGEST = 60
"""Letters of names that a report's folder is called by."""
OWN = {"table": ("table", "FILE.csv"), "folder": ("root", "DIR")}
"""Choices of `data` that are a user's own: the key that says which, and what it takes."""


class Request(NamedTuple):
    """Folders of runs; the name of other data that they score, or None; views of an image; the report's folder.

    `predictions` are other systems' files, by their names; `labels` those that all is measured on, None for all;
    `methods` those of heat maps, none where there are to be none.
    """

    folders: list[Path]
    data: str | None
    views: tuple[View, ...]
    out: Path
    predictions: dict[str, Path]
    labels: tuple[str, ...] | None
    methods: tuple[str, ...]

    @property
    def together(self) -> bool:
        """Whether all runs stand in one report, or none: each was named, or all are to score the same images."""
        return self.data is not None or all((folder / "config.yaml").exists() for folder in self.folders)


def read(config: DictConfig) -> Request:
    """What the configuration asks for, as far as it can be told without reading a run.

    Raises:
        EvaluationError: no runs, too few draws, data without a table, a logger that takes no report, no such method of
            heat maps, a name that no other system can have, labels that are no list of names, or a place where no
            report can be.
        ThresholdError: no such rule, or not with this value.
    """
    if OmegaConf.is_missing(config, "runs") or config.runs in (None, "", []):
        raise EvaluationError("which runs? say runs=FOLDER or 'runs=[A,B]'")
    if not isinstance(config.draws, int) or config.draws < FEWEST_DRAWS:
        raise EvaluationError(f"draws={config.draws}: intervals are made of at least {FEWEST_DRAWS}")
    if OmegaConf.select(config, "logger.lightning") is not None:
        choice = HydraConfig.get().runtime.choices["logger"]
        raise EvaluationError(
            f"logger={choice}: reports go to Weights & Biases alone; say logger=wandb, or leave it out"
        )
    maps = _methods(config)
    thresholds.check(config.threshold.rule or thresholds.USUAL, config.threshold.at)
    folders = [Path(str(folder)) for folder in (config.runs if OmegaConf.is_list(config.runs) else [config.runs])]
    data = None if config.get("data") is None else name_of(config.data)
    views_asked = views(**config.views)
    predictions = peers.named(OmegaConf.to_container(config).get("predictions"))
    labels = _labels(config)
    systems = (_joined(predictions) or "other") if predictions else None
    parts = ["report", data, name(views_asked), _joined(labels or ()), systems]
    called = "-".join(filter(None, parts))
    if OmegaConf.is_config(config.out):
        raise EvaluationError(f"out={config.out}: one folder is needed, out=FOLDER")
    out = common_parent(folders) / called if config.out in (None, "") else Path(str(config.out))
    if config.out is None and out.is_symlink():  # of whoever wrote the runs
        raise EvaluationError(
            f"{out}: a link to {out.readlink()}; say out=FOLDER to have the report there or elsewhere"
        )
    if out.exists() and not out.is_dir():
        raise EvaluationError(f"out={out}: a file of that name is there; name a folder")
    return Request(folders, data, views_asked, out, predictions, labels, maps)


def _methods(config: DictConfig) -> tuple[str, ...]:
    if config.explain is None:
        return ()
    names = [*config.explain] if OmegaConf.is_list(config.explain) else [config.explain]
    if not names or set(map(str, names)) - METHODS.keys():
        raise EvaluationError(f"explain={config.explain}: null, or one or several of {', '.join(METHODS)} are needed")
    return tuple(dict.fromkeys(names))


def _labels(config: DictConfig) -> tuple[str, ...] | None:
    if config.labels is None:
        return None
    labels = [*config.labels] if OmegaConf.is_list(config.labels) else [config.labels]
    if not labels or not all(isinstance(label, str) for label in labels) or len({*labels}) < len(labels):
        raise EvaluationError(
            f"labels={config.labels}: null, or findings, each once, are needed: 'labels=[effusion,mass]'"
        )
    return tuple(labels)


def _joined(names: Iterable[str]) -> str:
    """Names as a folder's name has them; of many so few that a hash of all tells them from others that begin alike."""
    joined = re.sub(r"[^\w.]+", "-", "-".join(names)).strip("-")
    return joined if len(joined) <= LONGEST else f"{joined[: LONGEST - 9].strip('-')}-{short_hash(joined)[:8]}"


def common_parent(folders: list[Path]) -> Path:
    """The innermost folder that holds them all; of a single one, itself."""
    return Path(os.path.commonpath([folder.resolve() for folder in folders]))


def name_of(data: DictConfig) -> str:
    """What predictions and report on other data are called: the data's name, and of one's own the file's or folder's.

    Such a name ends in a hash of where table and images lie: others of the same name are another report.
    """
    choice = HydraConfig.get().runtime.choices["data"]
    if choice not in OWN:
        return choice
    key, example = OWN[choice]
    if OmegaConf.is_missing(data, key):
        raise EvaluationError(f"data={choice}: which one? say data.{key}={example}")
    settings = [data[name] for name in dict.fromkeys((key, "root")) if data[name] is not None]
    places = [Path(place).expanduser().resolve() for place in settings]
    digest = hashlib.sha256("\n".join(map(str, places)).encode()).hexdigest()[:6]
    return f"{choice}-{re.sub(r'[^A-Za-z0-9.-]+', '-', places[0].stem)[:100]}-{digest}"
