"""The files of a run folder, which may be anybody's, are read so that nothing in them is run, filled in or followed."""

import io
import json
import shlex
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lungdet.errors import RunError

DEEPEST = 50
"""How deep a configuration may be nested."""


def read_config(path: Path) -> DictConfig:
    """A run's configuration.

    Raises:
        RunError: see `read_yaml`; or it refers to something outside of itself, such as a variable of the environment.
    """
    config = read_yaml(path)
    for key, value in _texts(OmegaConf.to_container(config, resolve=False)):
        if "${" in value:
            raise RunError(
                f"{path}: {key}: {value} would be filled in on this machine, and train.py writes down plain values; "
                "whoever wrote this has to put the value there"
            )
    return config


def read_yaml(path: Path) -> DictConfig:
    """A configuration that stands in a file.

    Raises:
        RunError: it cannot be read; it holds an alias: a few lines of them, written out, are longer than any memory; or
            it is nested so deeply that reading it would not end either.
    """
    try:
        text = path.read_text(encoding="utf-8")
        _require_finite(text, path)
        config = OmegaConf.load(io.StringIO(text))  # a plain word is refused, other than by `create`
        if not OmegaConf.is_dict(config):
            raise ValueError("no keys in it")
    except RunError:
        raise
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise damaged(path, error) from error
    return config


def read_facts(path: Path) -> dict:
    """What a JSON file says, by key, not to be changed; empty where there is none. Read anew only once it is another.

    Raises:
        RunError: it cannot be read.
    """
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:  # a folder that may not be searched
        raise damaged(path, error) from error
    return _facts(path, (state.st_ino, state.st_mtime_ns, state.st_size))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a whole checkpoint holds, in host memory.

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


def require_intact(checkpoint: Path) -> None:
    """Passes only a checkpoint that is there and can be read to its end.

    Raises:
        RunError: it is not so; the message says whether the run's other checkpoint is.
    """
    if not checkpoint.is_file():
        raise RunError(f"{checkpoint}: no such checkpoint; the run ended before an epoch was validated: start it anew")
    if _whole(checkpoint):
        return
    spare = checkpoint.with_name({"last.ckpt": "best.ckpt", "best.ckpt": "last.ckpt"}[checkpoint.name])
    remedy = "start the run anew"
    if spare.is_file() and _whole(spare):
        remedy = (
            f"{spare} is whole, but its weights are not the best epoch's: start the run anew"
            if spare.name == "last.ckpt"
            else f"{spare} is whole, and the run goes on from that epoch after: "
            + shlex.join(["cp", str(spare), str(checkpoint)])
        )
    raise RunError(f"{checkpoint} is damaged; {remedy}")


def damaged(path: Path, error: Exception) -> RunError:
    """What to raise of a file of a run that cannot be read."""
    return RunError(f"{path} is damaged ({error}); put a copy of it back, or start a new run in another folder")


def _require_finite(text: str, path: Path) -> None:
    depth = 0
    for event in yaml.parse(text):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise RunError(f"{path}, line {event.start_mark.line + 1}: nested more than {DEEPEST} deep; it is damaged")
        if isinstance(event, yaml.AliasEvent):
            raise RunError(
                f"{path}, line {event.start_mark.line + 1}: *{event.anchor} stands for something else, which train.py "
                "never writes and which may be longer than memory; write there what it stands for"
            )


@lru_cache(maxsize=1024)
def _facts(path: Path, state: tuple[int, ...]) -> dict:
    """What a file says in this state of it: `lungdet.machine.writing` puts another file in its place each time."""
    try:
        facts = json.loads(path.read_text())
        if not isinstance(facts, dict):
            raise ValueError(f"no facts in it but {facts!r:.20}")
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    return facts


def _whole(checkpoint: Path) -> bool:
    """Whether a checkpoint can be read to its end and is what was written: a zip archive, which has checksums."""
    try:
        with ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except (BadZipFile, EOFError, RuntimeError):
        return False


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
