"""Whoever has started several processes can be stopped like anybody else, while they run and ever after."""

import subprocess
import sys

import pytest

from tests.calling import environment

# One process that launches thrice: that costs less than three. The processes that it starts import the same module.
SCRIPT = """
import os, signal, time
from lungdet.errors import InputError
from lungdet.machine import launching
launching.PATIENCE = 600  # the second process waits to be ended however much later the first fails

def stopped(number):
    os.kill(os.getppid(), number)
    time.sleep(600)  # it is ended before

def refusing():
    raise InputError("what the user has to mend")

def launch(function, *words, processes):
    try:
        launching.launch(function, *words, processes=processes)
    except BaseException as error:
        print(repr(error))
    print(signal.getsignal(signal.SIGINT) is before, signal.getsignal(signal.SIGTERM).name)
    print({name for name in os.environ if name.startswith("TORCHELASTIC")}, flush=True)

if __name__ == "__main__":
    before = signal.getsignal(signal.SIGINT)  # a shell's background job hands it on ignored
    launch(refusing, processes=2)
    for number in (signal.SIGINT, signal.SIGTERM):
        launch(stopped, number, processes=1)
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess:
    """What launching said and printed of a refusal in two processes, of SIGINT and of SIGTERM."""
    script = tmp_path_factory.mktemp("launching") / "script.py"
    script.write_text(SCRIPT)
    return subprocess.run(
        [sys.executable, str(script)], env=environment(), capture_output=True, text=True, timeout=1800, check=True
    )


@pytest.mark.slow
def test_what_the_user_has_to_mend_is_told_once_and_without_a_traceback(launched: subprocess.CompletedProcess) -> None:
    assert launched.stdout.startswith("InputError('process 0 of 2 ended with status 1; why, ")
    assert launched.stderr.count("what the user has to mend") == 1
    assert "Traceback" not in launched.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("place", "raised"), [(1, "Interrupted(130)"), (2, "Interrupted(143)")])
def test_a_signal_ends_the_command_and_not_this_job_alone(
    launched: subprocess.CompletedProcess, place: int, raised: str
) -> None:
    assert launched.stdout.splitlines()[3 * place] == raised


@pytest.mark.slow
def test_signals_and_environment_are_as_before_when_all_is_done(launched: subprocess.CompletedProcess) -> None:
    lines = launched.stdout.splitlines()
    assert [lines[3 * place + 1 :][:2] for place in range(3)] == [["True SIG_DFL", "set()"]] * 3
