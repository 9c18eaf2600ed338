"""What a command asks for is checked before Hydra makes a folder for it, every job of a multirun before the first."""

import atexit
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from lungdet.configuration.jobs import examples
from lungdet.configuration.keys import plain, require_known
from lungdet.configuration.trainer import require_trainable
from lungdet.errors import InputError, plain_errors, require_no_secret
from lungdet.instantiation import require_kinds
from lungdet.machine.commands import key_of
from lungdet.machine.writing import require_writable


class Check(Callback):
    """Ends the program where a configuration has a key that is not known, or a value of another kind than its key's.

    In `hydra.callbacks` of each program's configuration, before any other.

    Args:
        single: of a program that makes no runs, what is made at a time, and which word takes several: its multirun
            would leave a folder, and nothing in it, and is refused.
    """

    def __init__(self, single: str | None = None) -> None:
        self._single = single

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Comes before the folder of a single run is made."""
        with _ending():
            if "sweep.name" in map(key_of, config.hydra.overrides.task):
                raise InputError("sweep.name names the folder of several jobs: add -m; a run's is hydra.run.dir=FOLDER")
            check(config)
            _require_place(config, "run")

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Comes before the multirun's folder is made, which goes again where no job leaves anything in it."""
        loader = GlobalHydra.instance().config_loader()
        with _ending():
            if self._single is not None:
                raise InputError(f"leave -m (hydra.mode=MULTIRUN) out: {self._single}")
            for words in examples(config):
                try:
                    check(loader.load_sweep_config(config, words))
                except InputError as error:
                    raise InputError(f"{error} (in the job {' '.join(words)})") from error
            _require_place(config, "sweep")
        atexit.register(_remove_empty, Path(config.hydra.sweep.dir).absolute())


def check(config: DictConfig) -> None:
    """Pass only keys that are known, with values of the kind that their classes take, and no password in them.

    Raises:
        InputError: see `require_known`, `require_kinds`, `require_trainable` and `require_no_secret`.
    """
    require_known(config, GlobalHydra.instance().config_loader())
    require_kinds(config, config.get("trust") or ())
    if "trainer" in config:
        require_trainable(config)
    for group, values in plain(config).items():
        require_no_secret(group, values)


def _require_place(config: DictConfig, kind: str) -> None:
    """Pass only where Hydra can make the folder of a `run` or a `sweep`, as far as its name is no interpolation."""
    folder = OmegaConf.to_container(config.hydra[kind])["dir"]
    if folder.startswith("${outputs}"):
        require_writable("outputs", Path(config.outputs))
    elif folder != ".":  # of programs that leave nothing there
        require_writable(f"hydra.{kind}.dir", Path(folder.partition("${")[0]))


@contextmanager
def _ending() -> Iterator[None]:
    """End the program with whatever exception comes: Hydra would only warn of it, and go on."""
    try:
        with plain_errors():
            yield
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def _remove_empty(folder: Path) -> None:
    """Remove a multirun's folder that holds nothing but what Hydra put there."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} == {"multirun.yaml"}:
        (folder / "multirun.yaml").unlink()
        with suppress(OSError):
            folder.rmdir()
