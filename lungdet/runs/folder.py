"""What a run folder holds, and how it is written and read back.

config.yaml          the resolved configuration
environment.json     versions, git revision, hardware, data and split with hashes, time, memory
split.csv            image_id, patient_id, dataset, split
metrics.csv          a row an epoch
checkpoints/         best.ckpt, last.ckpt
predictions/         val.parquet, test.parquet: a row an image; train.parquet: of some training patients, not augmented,
                     about as many images as val; shortcuts_{val,test}.parquet: a row an image and shortcut;
                     degraded_test.parquet, where asked for: a row an image, degradation and level
reference.npz        what its images look like, see `lungdet.data.reference`
start/               where it started from another run: that one's config.yaml, environment.json, split.csv and start/
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from lungdet.errors import RunError, first_few
from lungdet.machine import ranks
from lungdet.machine.commands import own_configuration
from lungdet.machine.writing import make_folder, write_text
from lungdet.runs import predictions, software
from lungdet.runs.reading import damaged, read_checkpoint, read_config, read_facts, require_intact

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

log = logging.getLogger(__name__)

LOCK = ".lock"
"""The file that a process holds which trains in the folder."""
LOG = "train.log"
"""What was printed."""
FOLDERS = ("start", "checkpoints", "predictions")
FILES = ("config.yaml", "environment.json", "split.csv", "metrics.csv", "reference.npz")
"""What a run writes. Other things in its folder are its user's, or a dashboard's (`wandb`)."""

NEEDED = (
    "task", "model._target_", "data.image_size", "data.resize", "data.bits", "data.visits",
    "trainer.accelerator", "trainer.precision", "trainer.memory_format",
)  # fmt: skip
"""Of a configuration, what whoever predicts with the run asks for."""


@dataclass(frozen=True)
class Run:
    """One run folder. Of several processes that train one run, the first alone writes in it."""

    folder: Path
    changed: DictConfig | None = None
    """A continued run's configuration as this command has it, until `begin` writes it down."""
    trains_on: bool = False
    """Whether a run that was fitted is trained on: else its predictions alone are made again."""
    words: tuple[str, ...] = ()
    """What the command line said that goes on with a run, until `begin` writes it down."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @cached_property
    def config(self) -> DictConfig:
        """The resolved configuration that the run was started with, or is continued with.

        Raises:
            RunError: see `read_config`.
        """
        return read_config(self.folder / "config.yaml") if self.changed is None else self.changed

    def require_configured(self) -> None:
        """Passes only a run whose configuration has what predicting with it takes.

        Raises:
            RunError: it has not.
        """
        from lungdet.findings import TASKS  # with pandas

        path = self.folder / "config.yaml"
        if missing := [key for key in NEEDED if not _has(self.config, key)]:
            raise RunError(f"{path} has no {', '.join(missing)}; put a copy of it back, or train the run again")
        if self.config.task not in [*TASKS]:
            raise RunError(f"{path}: task: {self.config.task}: one of {', '.join(TASKS)} is needed")

    @property
    def environment(self) -> dict:
        """`environment.json`, not to be changed; empty before training has begun.

        Raises:
            RunError: it cannot be read.
        """
        return read_facts(self.folder / "environment.json")

    @property
    def data(self) -> dict:
        """What it recorded of its data as it began, see `RadiographDataModule.describe`.

        Raises:
            RunError: it has recorded nothing, or not all that others ask for.
        """
        facts = self.environment.get("data", {})
        if missing := sorted({"bits", "fingerprint", "patients_known", "sources", "store"} - facts.keys()):
            path = self.folder / "environment.json"
            raise RunError(f"{path} does not say under data: {', '.join(missing)}; train the run again")
        return facts

    @property
    def epochs(self) -> "pd.DataFrame":
        """`metrics.csv`, a row an epoch; without rows before the first.

        Raises:
            RunError: it cannot be read.
        """
        import pandas as pd

        path = self.folder / "metrics.csv"
        try:
            table = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["epoch", "val/loss", "seconds"])
            return table.astype({"epoch": int, "val/loss": float})
        except (OSError, ValueError, KeyError) as error:
            raise damaged(path, error) from error

    @property
    def commands(self) -> list[list[str]]:
        """What the command lines said that asked for this run: the one that started it, then others."""
        return [self.environment.get("overrides", []), *self.environment.get("asked_again", [])]

    @property
    def finished(self) -> bool:
        """Whether training came to its end and the test part was predicted."""
        return self.environment.get("finished") is not None

    @property
    def fitted(self) -> bool:
        """Whether there is nothing left to train, only to predict."""
        return bool(self.environment.get("fitted")) and not self.trains_on

    @property
    def best_loss(self) -> float:
        """The lowest validation loss of any epoch.

        Raises:
            RunError: no epoch is written down.
        """
        losses = self.epochs["val/loss"]
        if losses.empty:
            raise RunError(f"{self.folder / 'metrics.csv'} holds no epoch; start a new run")
        return float(losses.min())

    @property
    def can_continue(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return (self.folder / "checkpoints" / "last.ckpt").is_file()

    @property
    def has_learnt(self) -> bool:
        """Whether there is any checkpoint: what was learnt is in it, and is not removed."""
        return any((self.folder / "checkpoints").glob("*.ckpt"))

    def checkpoint(self, name: str) -> Path:
        """`best` or `last`.

        Raises:
            RunError: it is not there, or damaged.
        """
        path = self.folder / "checkpoints" / f"{name}.ckpt"
        require_intact(path)
        return path

    def weights(self) -> "dict[str, Tensor]":
        """The best epoch's weights, by name.

        Raises:
            RunError: as `checkpoint`, or there is something else in it.
        """
        path = self.checkpoint("best")
        try:
            return read_checkpoint(path)["state_dict"]
        except KeyError as error:
            raise RunError(f"{path} holds no weights; ask for another copy of the run") from error

    def split(self) -> "pd.DataFrame":
        """Who was in train, val and test: `image_id, patient_id, dataset, split`.

        Raises:
            RunError: the run has not written it down.
        """
        import pandas as pd

        path = self.folder / "split.csv"
        if not path.is_file():
            raise RunError(f"{path}: no such file, so whom the run was trained on is not known; train the run again")
        split = pd.read_csv(path, dtype=str, keep_default_na=False)
        missing = [column for column in ("image_id", "patient_id", "dataset", "split") if column not in split]
        if missing:
            raise RunError(
                f"{path}: no column {', '.join(missing)}, so whom the run was trained on is not known; add it, or "
                "train the run again"
            )
        return split

    @property
    def start(self) -> "Run | None":
        """The run whose backbone this one started from, as it was then, without its weights; None without one.

        Raises:
            RunError: nothing was kept of it.
        """
        folder = OmegaConf.select(self.config, "model.backbone.init_from")
        if folder is None:
            return None
        copy = self.folder / "start"
        if not (copy / "config.yaml").is_file():
            raise RunError(
                f"{copy}: no such folder, or no config.yaml in it. It tells what {folder}, which {self.name} started "
                "from, had learnt from; train the run again"
            )
        return Run(copy)

    def keep_start(self, start: "Run") -> None:
        """Keep of the run that this one starts from what identifies it, as `start`."""
        if ranks.rank():
            return
        copy = self.folder / "start"
        shutil.rmtree(copy, ignore_errors=True)  # of an attempt that never had a checkpoint
        make_folder(copy)
        for name in ("split.csv", "environment.json"):
            write_text(copy / name, (start.folder / name).read_text())
        if start.start is not None:
            Run(copy).keep_start(start.start)
        write_text(copy / "config.yaml", (start.folder / "config.yaml").read_text())  # last: with it, all is there

    def predictions(self, part: str) -> "pd.DataFrame":
        """The predictions of `train`, `val` or `test`, see `lungdet.runs.predictions`.

        Raises:
            RunError: the run has not written them.
        """
        return predictions.read(self.folder, part)

    def write_predictions(self, part: str, table: "pd.DataFrame") -> None:
        """Write `predictions/<part>.parquet`, see `lungdet.runs.predictions`; whole or not at all."""
        predictions.write(self.folder, part, table)

    def create(self, config: DictConfig, overrides: Sequence[str] = ()) -> None:
        """Make the folder a run: its resolved configuration, what the command line said, and when it was started."""
        (self.folder / "environment.json").unlink(missing_ok=True)  # of an attempt that never had a checkpoint
        self._write("config.yaml", OmegaConf.to_yaml(settled(config, self.folder)))
        command = {"run": self.name, "overrides": [*overrides], "started": _now(), "finished": None}
        command["own_configuration"] = own_configuration()
        self.record(**command, git=software.revision(), versions=software.versions())

    def require_room(self) -> None:
        """Passes only a folder with a run, or one where a new run replaces nothing.

        Raises:
            RunError: something in it is called as a file or folder of a run, and is of none that would be known.
        """
        replaced = [name for name in (*FOLDERS, *FILES) if os.path.lexists(self.folder / name)]
        if replaced and not (self.folder / "config.yaml").exists():  # asked last: a run that begins writes it first
            raise RunError(
                f"{self.folder}: a new run would replace {', '.join(replaced)}, and no config.yaml says of which run "
                "that is; move it away, or choose another folder (hydra.run.dir=FOLDER)"
            )

    def discard(self) -> None:
        """Remove what an attempt without a checkpoint has written, and its folder where nothing else is in it."""
        for name in FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in (*FILES, LOCK):
            (self.folder / name).unlink(missing_ok=True)
        remove_logged(self.folder)
        kept = sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []
        rest = f"; what else is there stays: {first_few(kept)}" if kept else ""
        log.info("%s: nothing was trained, and what was written for it is removed%s", self.folder, rest)

    def begin(self, **facts: object) -> None:
        """Write down what is about to be trained, on what: from here on the folder is this configuration's."""
        if self.changed is not None:
            self._write("config.yaml", OmegaConf.to_yaml(self.changed))
            facts["finished"] = None
        if self.trains_on:
            facts["fitted"] = False
        self.record(**facts)
        if self.words:
            self.ask_again(self.words)

    def ask_again(self, words: Sequence[str]) -> None:
        """Record what the command line said that asks for this run, unless one before said the same."""
        if [*words] not in self.commands:
            self.record(asked_again=[*self.environment.get("asked_again", []), [*words]])

    def finish(self, **facts: object) -> None:
        """Mark the run as finished and record what it cost."""
        self.record(finished=_now(), **facts)

    def record(self, **facts: object) -> None:
        """Add facts to `environment.json`; the file is replaced whole, never left half written."""
        self._write("environment.json", json.dumps(self.environment | facts, indent=1) + "\n")

    def _write(self, name: str, text: str) -> None:
        if ranks.rank() == 0:
            write_text(self.folder / name, text)


def load_run(folder: str | Path) -> Run:
    """The run in a folder.

    Raises:
        RunError: no such folder, or it holds no run.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder; a run folder is what train.py prints when it starts")
    if not (folder / "config.yaml").is_file():
        raise RunError(f"{folder}: no run, since there is no config.yaml in it")
    return Run(folder)


def find_runs(folder: str | Path) -> list[Run]:
    """The runs in and below a folder, by path; what lies within a run is not searched.

    Raises:
        RunError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder")
    runs = []
    for path, folders, files in os.walk(folder):
        if "config.yaml" in files:
            runs.append(Run(Path(path)))
            folders.clear()
        folders[:] = [name for name in folders if name != "wandb"]  # of a report, with a config.yaml of its own
    return sorted(runs, key=_place)


def remove_logged(folder: Path) -> None:
    """Remove a folder in which nothing but the log is: what it says was printed, too."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {LOG}:
        (folder / LOG).unlink(missing_ok=True)
        folder.rmdir()


def settled(config: DictConfig, folder: Path) -> DictConfig:
    """A configuration as the run in this folder keeps it: every interpolation resolved, nothing left to continue."""
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    resolved.resume, resolved.run_dir = None, str(folder)
    resolved.pop("trust", None)  # each command says it anew
    return resolved


def _has(config: DictConfig, key: str) -> bool:
    group, _, rest = key.partition(".")
    return OmegaConf.is_dict(config) and group in config and (not rest or _has(config[group], rest))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _place(run: Run) -> list[str | int]:
    """What runs are in order by: job 10 comes after job 9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(run.folder))]
