"""What a run folder holds, and how it is written and read back.

config.yaml          the resolved configuration
environment.json     versions, git revision, hardware, data and split with hashes, time, memory
split.csv            image_id, patient_id, dataset, split
metrics.csv          a row an epoch
checkpoints/         best.ckpt, last.ckpt
predictions/         val.parquet, test.parquet: a row an image; train.parquet: of some training patients, not augmented,
                     about as many images as val; shortcuts_{val,test}.parquet: a row an image and shortcut;
                     degraded_test.parquet, where asked for: a row an image, degradation and level
start/               where it started from another run: that one's config.yaml, environment.json, split.csv and start/
"""

import io
import json
import logging
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lungdet.errors import InputError
from lungdet.machine import ranks
from lungdet.machine.commands import command, override
from lungdet.machine.writing import make_folder, replacing, write_text

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import Tensor

log = logging.getLogger(__name__)

DEEPEST = 50
"""How deep a configuration may be nested."""

_UNCOUNTED = {
    "pixels": "files of other names, sizes or times of change",
    "split": "the file or list that it is read from names other parts",
}


class RunError(InputError):
    """A run folder that is not there, or lacks what is asked of it; the message says what to do."""


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
            RunError: config.yaml cannot be read, or refers to something outside of itself, such as a variable of the
                environment.
        """
        if self.changed is not None:
            return self.changed
        path = self.folder / "config.yaml"
        try:
            config = load_yaml(path)
            if not OmegaConf.is_dict(config):
                raise ValueError("no keys in it")
        except RunError:
            raise
        except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
            raise _damaged(path, error) from error
        _require_resolved(config, path)
        return config

    @property
    def environment(self) -> dict:
        """`environment.json`; empty before training has begun.

        Raises:
            RunError: it cannot be read.
        """
        path = self.folder / "environment.json"
        try:
            facts = json.loads(path.read_text()) if path.is_file() else {}
            if not isinstance(facts, dict):
                raise ValueError(f"no facts in it but {facts!r:.20}")
            return facts
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from error

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
        """`metrics.csv`, a row an epoch.

        Raises:
            RunError: it is not there or cannot be read.
        """
        import pandas as pd

        path = self.folder / "metrics.csv"
        try:
            table = pd.read_csv(path)
            return table.astype({"epoch": int, "val/loss": float})
        except (OSError, ValueError, KeyError) as error:
            raise _damaged(path, error) from error

    @property
    def asked(self) -> list[list[str]]:
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
        """The lowest validation loss of any epoch."""
        return float(self.epochs["val/loss"].min())

    @property
    def can_continue(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return (self.folder / "checkpoints" / "last.ckpt").is_file()

    def checkpoint(self, which: str) -> Path:
        """`best` or `last`.

        Raises:
            RunError: it is not there, or damaged.
        """
        path = self.folder / "checkpoints" / f"{which}.ckpt"
        if not path.is_file():
            raise RunError(f"{path}: no such checkpoint; the run ended before an epoch was validated: start it anew")
        if not _whole(path):
            raise RunError(f"{path} is damaged; {_remedy(path)}")
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
        kept = self.folder / "start"
        if not (kept / "config.yaml").is_file():
            raise RunError(
                f"{kept}: no such folder, or no config.yaml in it. It tells what {folder}, which {self.name} started "
                "from, had learnt from; train the run again"
            )
        return Run(kept)

    def keep_start(self, start: "Run") -> None:
        """Keep of the run that this one starts from what identifies it, as `start`."""
        if ranks.rank():
            return
        kept = self.folder / "start"
        shutil.rmtree(kept, ignore_errors=True)  # of an attempt that never had a checkpoint
        make_folder(kept)
        for name in ("split.csv", "environment.json"):
            write_text(kept / name, (start.folder / name).read_text())
        if start.start is not None:
            Run(kept).keep_start(start.start)
        write_text(kept / "config.yaml", (start.folder / "config.yaml").read_text())  # last: with it, all is there

    def predictions(self, part: str) -> "pd.DataFrame":
        """The predictions of `train`, `val` or `test`, see `prediction_table`.

        Raises:
            RunError: the run has not written them.
        """
        import pandas as pd

        path = self.folder / "predictions" / f"{part}.parquet"
        if not path.is_file():
            finish = command("train.py", override("resume", self.folder))
            raise RunError(f"{path}: no predictions; finish the run with: {finish}")
        return pd.read_parquet(path)

    def create(self, config: DictConfig, overrides: Sequence[str] = ()) -> None:
        """Make the folder a run: its resolved configuration, what the command line said, and when it was started."""
        (self.folder / "environment.json").unlink(missing_ok=True)  # of an attempt that never had a checkpoint
        self._save_config(settled(config, self.folder))
        said = {"run": self.name, "overrides": list(overrides), "started": _now(), "finished": None}
        self.record(**said, git=_revision(), versions=versions())

    def require_data(self, identity: dict[str, dict]) -> None:
        """Passes only the data that the run is of, where it has recorded any.

        Args:
            identity: of the data as they are now, see `RadiographDataModule.identity`.

        Raises:
            RunError: they differ; the message says in what.
        """
        recorded = self.environment.get("data", {}).get("identity", {})
        if not recorded and not self.finished and not self.can_continue:
            return
        if missing := identity.keys() - recorded.keys():
            path = self.folder / "environment.json"
            raise RunError(f"{path} does not say which {', '.join(sorted(missing))} the run is of; start a new run")
        differing = [kind for kind in identity if recorded[kind]["hash"] != identity[kind]["hash"]]
        if differing[:1] == ["images"]:  # of other images the rest is other, too
            differing = ["images"]
        if differing:
            kinds = "; ".join(_difference(kind, recorded[kind], identity[kind]) for kind in differing)
            raise RunError(
                f"{self.folder} is a run of other data: {kinds}. Put them back as they were, or train on them as they "
                "are in another folder (sweep.name=NAME, hydra.run.dir=FOLDER)"
            )

    def begin(self, **facts: object) -> None:
        """Write down what is about to be trained, on what: from here on the folder is this configuration's.

        Raises:
            RunError: the run is continued, and its split is no longer the one it was trained on.
        """
        before, now = self.environment.get("split"), facts["split"]
        if before is not None and before["hash"] != now["hash"]:
            raise RunError(
                f"{self.folder} was trained on split {before['hash']} ({before['name']}), the data now give split "
                f"{now['hash']} ({now['name']}): start a new run"
            )
        if self.changed is not None:
            self._save_config(self.changed)
            facts["finished"] = None
        if self.trains_on:
            facts["fitted"] = False
        self.record(**facts)
        if self.words:
            self.ask_again(self.words)

    def ask_again(self, words: Sequence[str]) -> None:
        """Record what the command line said that asks for this run, unless one before said the same."""
        if [*words] not in self.asked:
            self.record(asked_again=[*self.environment.get("asked_again", []), [*words]])

    def record(self, **facts: object) -> None:
        """Add facts to `environment.json`; the file is replaced whole, never left half written."""
        if ranks.rank():
            return
        write_text(self.folder / "environment.json", json.dumps(self.environment | facts, indent=1) + "\n")

    def write_predictions(self, part: str, table: "pd.DataFrame") -> None:
        """Write `predictions/<part>.parquet`, see `prediction_table`; whole or not at all."""
        if ranks.rank():
            return
        folder = self.folder / "predictions"
        make_folder(folder)
        with replacing(folder / f"{part}.parquet") as file:
            table.to_parquet(file)

    def _save_config(self, config: DictConfig) -> None:
        if ranks.rank() == 0:
            write_text(self.folder / "config.yaml", OmegaConf.to_yaml(config))


def prediction_table(manifest: "pd.DataFrame", labels: Sequence[str], logit: "np.ndarray") -> "pd.DataFrame":
    """Predictions that can be read by themselves, a row an image.

    Args:
        manifest: of the images predicted, row by row.
        labels: what was predicted, L manifest columns.
        logit: (N, L) log-odds.

    Returns:
        Columns `image_id, patient_id, dataset, visit, age, sex, view`; `target_<label>` (1 / 0 / NaN) for `abnormal`
        and every finding; `logit_<label>` and, for who reads them, `probability_<label>`, float64, for what was
        predicted. Evaluation takes the log-odds: probabilities near 1 tie.
    """
    import numpy as np
    import pandas as pd
    from scipy.special import expit

    from lungdet.findings import FINDINGS

    predicted = {}
    for label, values in zip(labels, np.asarray(logit, np.float64).T, strict=True):
        predicted |= {f"logit_{label}": values, f"probability_{label}": expit(values)}
    described = manifest[["image_id", "patient_id", "dataset", "visit", "age", "sex", "view"]]
    targets = manifest[["abnormal", *FINDINGS]].astype("float32").add_prefix("target_")
    known = pd.concat([described, targets], axis=1).reset_index(drop=True)
    return pd.concat([known, pd.DataFrame(predicted)], axis=1)


def load_yaml(path: Path) -> DictConfig:
    """A configuration that stands in a file.

    Raises:
        RunError: it holds an alias: a few lines of them, written out, are longer than any memory; or it is nested so
            deeply that reading it would not end either.
    """
    text, depth = path.read_text(encoding="utf-8"), 0
    for event in yaml.parse(text):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise RunError(f"{path}, line {event.start_mark.line + 1}: nested more than {DEEPEST} deep; it is damaged")
        if isinstance(event, yaml.AliasEvent):
            raise RunError(
                f"{path}, line {event.start_mark.line + 1}: *{event.anchor} stands for something else, which train.py "
                "never writes and which may be longer than memory; write there what it stands for"
            )
    return OmegaConf.load(io.StringIO(text))  # a plain word is refused, other than by `create`


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a whole checkpoint holds, in host memory; nothing in it is run.

    Raises:
        RunError: it holds more than numbers and names.
    """
    import torch

    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except UnpicklingError as error:
        raise RunError(
            f"{path} holds more than weights and is not read: it could run code. Ask for another copy of the run"
        ) from error


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
    found = []
    for here, below, files in os.walk(folder):
        if "config.yaml" in files:
            found.append(Run(Path(here)))
            below.clear()
    return sorted(found, key=lambda run: _natural(run.folder))


def finish(run: Run, **facts: object) -> None:
    """Mark a run as finished and record what it cost."""
    run.record(finished=_now(), **facts)


def settled(config: DictConfig, folder: Path) -> DictConfig:
    """A configuration as the run in this folder keeps it: every interpolation resolved, nothing left to continue."""
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    resolved.resume, resolved.run_dir = None, str(folder)
    resolved.pop("trust", None)  # each command says it anew
    return resolved


def versions() -> dict[str, str]:
    """Python's and the packages' versions that bear on a run's numbers."""
    import platform
    from importlib.metadata import version

    packages = ("lungdet", "torch", "lightning", "torchmetrics", "albumentations", "timm", "numpy", "pandas", "pillow")
    return {"python": platform.python_version()} | {package: version(package) for package in packages}


def _remedy(damaged: Path) -> str:
    """What to do about a damaged checkpoint, the other one being whole or not."""
    other = damaged.with_name({"last.ckpt": "best.ckpt", "best.ckpt": "last.ckpt"}[damaged.name])
    if not other.is_file() or not _whole(other):
        return "start the run anew"
    if other.name == "last.ckpt":
        return f"{other} is whole, but its weights are not the best epoch's: start the run anew"
    return (
        f"{other} is whole, and the run goes on from that epoch after: {shlex.join(['cp', str(other), str(damaged)])}"
    )


def _whole(checkpoint: Path) -> bool:
    """Whether a checkpoint can be read to its end and is what was written: a zip archive, which has checksums."""
    try:
        with ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except (BadZipFile, EOFError, RuntimeError):
        return False


def _damaged(path: Path, error: Exception) -> RunError:
    return RunError(f"{path} is damaged ({error}); put a copy of it back, or start a new run in another folder")


def _difference(kind: str, before: dict, now: dict) -> str:
    """`labels (96 known, 48 positive then; 96 known, 47 positive now)`."""
    then, today = (
        ", ".join(f"{count:,} {what}" for what, count in facts.items() if what != "hash") for facts in (before, now)
    )
    return f"{kind} ({then} then; {today} now)" if then else f"{kind} ({_UNCOUNTED[kind]})"


def _require_resolved(config: DictConfig, path: Path) -> None:
    for key, value in _texts(OmegaConf.to_container(config, resolve=False)):
        if "${" in value:
            raise RunError(
                f"{path}: {key}: {value} would be filled in on this machine, and train.py writes down plain values; "
                "whoever wrote this has to put the value there"
            )


def _texts(node: object, key: str = "") -> Iterator[tuple[str, str]]:
    """The texts in plain values, each with the key that it stands under."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _texts(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _texts(value, f"{key}[{i}]")
    elif isinstance(node, str):
        yield key, node


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _revision() -> str | None:
    """The checkout's git revision, `+` if it was changed; None outside of git."""
    import subprocess

    here = Path(__file__).parent
    try:
        show = ["git", "-C", str(here), "describe", "--always", "--abbrev=12", "--dirty=+"]
        return subprocess.run(show, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _natural(path: Path) -> list:
    """Sort job 10 after job 9."""
    import re

    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


if __name__ == "__main__":
    from lungdet.runs.listing import main

    main()
