"""Commands called within this process: one of their own costs ten seconds before it does anything."""

import contextlib
import io
import logging
import os
import sys
import traceback
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

CHECKOUT = Path(__file__).parent.parent


def composed(name: str, *words: object, hydra: bool = False) -> DictConfig:
    """The configuration of this name with these words of a command line, with Hydra's own part where asked for."""
    with initialize_config_dir(str(CHECKOUT / "conf"), version_base="1.3"):
        return compose(name, [*map(str, words)], return_hydra_config=hydra)


def environment(*folders: Path) -> dict[str, str]:
    """The variables of a process that imports from these folders, or from the checkout."""
    paths = [*map(str, folders or [CHECKOUT]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def call(program: ModuleType, *words: object, cwd: Path = CHECKOUT) -> CompletedProcess:
    """What `python PROGRAM WORDS`, or `lungdet PROGRAM WORDS`, prints in a folder and with which status it ends.

    Args:
        program: a module with `start`.
        words: of the command line.
        cwd: where it is started.
    """
    root, status = logging.getLogger(), 0
    handlers, level = root.handlers[:], root.level
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(io.StringIO()) as printed,
        contextlib.redirect_stderr(io.StringIO()) as errors,
        pytest.MonkeyPatch.context() as patch,
    ):
        name = program.__name__.removeprefix("lungdet.programs.")
        patch.setattr(sys, "argv", [f"{name}.py" if name == program.__name__ else f"lungdet {name}", *map(str, words)])
        patch.setenv("HYDRA_FULL_ERROR", "1")  # as the program itself sets it, and here ends with the call
        try:
            program.start()
        except SystemExit as end:  # as Python ends a process
            status = end.code if isinstance(end.code, int | None) else print(end.code, file=sys.stderr) or 1
        except Exception:
            traceback.print_exc()
            status = 1
        finally:  # as the next process finds it
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None
            root.handlers[:] = handlers
            root.setLevel(level)
    return CompletedProcess(words, status or 0, printed.getvalue(), errors.getvalue())


def output(program: ModuleType, *words: object) -> str:
    """What a command prints that has to succeed."""
    done = call(program, *words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
