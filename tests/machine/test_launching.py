"""Whoever has started several processes can be stopped like anybody else, while they run and ever after."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.calling import CHECKOUT

SCRIPT = """
import os, signal, sys, time

def done():
    return 1

def stopped():
    if os.environ["RANK"] == "0":
        os.kill(os.getppid(), signal.Signals[os.environ["SENT"]])
    time.sleep(600)  # it is ended before

if __name__ == "__main__":
    from lungdet.machine import launching
    before = signal.getsignal(signal.SIGINT)  # a shell's background job hands it on ignored
    try:
        launching.launch(stopped if "SENT" in os.environ else done, processes=2)
    except BaseException as error:
        print(repr(error))
        sys.exit()
    print(signal.getsignal(signal.SIGINT) is before, signal.getsignal(signal.SIGTERM).name)
    print({name for name in os.environ if name.startswith("TORCHELASTIC")})
"""


def told(tmp_path: Path, **environment: str) -> str:
    (tmp_path / "script.py").write_text(SCRIPT)
    paths = os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(tmp_path / "script.py")]
    everything = os.environ | environment | {"PYTHONPATH": paths}
    return subprocess.run(command, env=everything, capture_output=True, text=True, timeout=600).stdout


def test_signals_and_environment_are_as_before_when_all_is_done(tmp_path: Path) -> None:
    assert told(tmp_path) == "True SIG_DFL\nset()\n"


@pytest.mark.parametrize(("sent", "raised"), [("SIGINT", "Interrupted(130)"), ("SIGTERM", "Interrupted(143)")])
def test_a_signal_ends_the_command_and_not_this_job_alone(tmp_path: Path, sent: str, raised: str) -> None:
    assert told(tmp_path, SENT=sent) == f"{raised}\n"
