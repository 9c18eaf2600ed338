"""A program of Hydra's: its configuration's folder, and how it ends where it cannot be composed."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hydra.errors import HydraException, InstantiationException

from lungdet.configuration.words import reason, require_readable
from lungdet.errors import InputError, plain_errors, require_no_secret
from lungdet.machine import ranks
from lungdet.machine.commands import key_of
from lungdet.machine.launching import PATIENCE

_PACKAGE = Path(__file__).parents[1]
CONF = next(folder for folder in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if (folder / "train.yaml").is_file())
"""What users edit: beside the package in a checkout, in it where it is installed."""


def run_program(main: Callable[[], None], name: str) -> None:
    """Run a program of Hydra's, and tell plainly what ends it before its own block begins, or after the last job's.

    The exit status is 1 where a job failed. Of several processes that run the same command, the first alone tells.

    Args:
        main: decorated with `hydra.main`.
        name: of its configuration.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra reports errors itself, most of them with a traceback
    try:
        with plain_errors():
            for word in sys.argv[1:]:
                require_no_secret(key_of(word).partition("://")[0], word)
            require_readable(sys.argv[1:], CONF, name)
            _run(main, name)
    except SystemExit as end:
        if ranks.rank() and isinstance(end.code, str):
            time.sleep(PATIENCE)  # torchrun ends all of them once one has ended
            raise SystemExit(1) from None
        raise
    except BrokenPipeError:  # whoever read along, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _run(main: Callable[[], None], name: str) -> None:
    try:
        main()
    except InstantiationException:
        raise
    except HydraException as error:
        raise InputError(reason(error, sys.argv[1:], CONF, name)) from error
