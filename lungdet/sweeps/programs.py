"""Another program of ours, started in a process of its own that knows nothing of the other processes of this one."""

import os
import subprocess
import sys
from pathlib import Path

import lungdet
from lungdet.machine import ranks
from lungdet.machine.commands import own_configuration

COMMAND = (sys.executable, "-m", "lungdet")


def run(program: str, *words: str) -> int:
    """Its exit status; it looks for choices where this one does.

    Args:
        program: of `lungdet.cli.PROGRAMS`.
        words: as Hydra is to read them.
    """
    package = str(Path(lungdet.__file__).parents[1])  # a checkout need not be installed
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    environment = ranks.environment_of_one() | {"PYTHONPATH": paths}
    return subprocess.run([*COMMAND, program, *own_configuration(), *words], env=environment).returncode
