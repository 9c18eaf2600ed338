"""What the user has to mend is told in a line, in one job and in several; what is a bug keeps its traceback."""

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.errors import HydraException, InstantiationException

from lungdet.errors import InputError, plain_errors, require_no_secret
from lungdet.machine.writing import require_writable
from tests.calling import call, environment

# The real Hydra, with jobs that take no time.
PROGRAM = """
import hydra
from pathlib import Path
from lungdet.configuration.program import run_program
from lungdet.errors import InputError, plain_errors, require_no_secret

@hydra.main(version_base="1.3", config_path=None, config_name=None)
def main(config):
    with plain_errors(alone=config.get("job") is None):
        match config.get("job"):
            case "bug":
                raise ZeroDivisionError("ours")
            case "done":
                Path("done").touch()
            case other:
                raise InputError(f"job={other}: no such job")

def start():
    run_program(main, "train")
"""


def app(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """In a process of its own, which ends with the status."""
    (folder / "app.py").write_text(f"{PROGRAM}\nstart()\n")
    return subprocess.run(
        [sys.executable, "app.py", *words], cwd=folder, env=environment(), capture_output=True, text=True
    )


def within(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """The same within this process."""
    (folder / "app.py").write_text(PROGRAM)
    names = {"__name__": "__main__"}  # what Python calls the file that it is started with
    exec(compile(PROGRAM, str(folder / "app.py"), "exec"), names)
    return call(SimpleNamespace(__name__="app", start=names["start"]), *words, cwd=folder)


def test_each_job_that_fails_says_why_and_the_others_run_on(tmp_path: Path) -> None:
    done = app(tmp_path, "-m", "+job=a,done,b")
    assert done.returncode == 1
    assert (tmp_path / "done").exists()
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "app.py: job=a: no such job"
    for job in ("a", "b"):
        [log] = [path.read_text() for path in tmp_path.rglob("app.log") if f"job={job}" in path.read_text()]
        assert "no such job" in log


def test_a_bug_in_a_job_keeps_its_traceback(tmp_path: Path) -> None:
    done = app(tmp_path, "-m", "+job=bug,done")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError: ours" in done.stderr
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-m", "+job=interval(0,1)"), "does not support sweep type"),
        (("-m", "+job=range("), "job=range(: not to be read as key=value"),
        (("-m", "nothing=1,2"), "nothing: there is no such key"),
        (("-m", "+job=a,b", "hydra.sweep.dir=app.py/sweep"), "app.py/sweep: Not a directory; a file is where"),
        (("hydra.run.dir=app.py/run",), "app.py/run: Not a directory; a file is where a folder is to be"),
        (("hydra.run.dir=app.py",), "app.py: File exists; a file is where a folder is to be"),
    ],
)
def test_what_stops_hydra_before_a_job_begins_is_told_in_a_line(
    tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = within(tmp_path, *words)
    assert done.returncode == 1
    assert done.stderr.startswith("app.py: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def caused_by(cause: Exception) -> Exception:
    error = InstantiationException("Error in call to target 'lungdet.models.cnn.CNN'")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError("seed=a: a number"), "seed=a: a number"),
        (caused_by(InputError("seed=a: a number")), "seed=a: a number"),
        (HydraException("no such key"), "no such key"),
        (PermissionError(errno.EACCES, "Permission denied", "/runs/a"), "/runs/a: Permission denied; give yourself"),
        (OSError(errno.EROFS, "Read-only file system", "/runs/a"), "/runs/a: Read-only file system; name a place"),
        (caused_by(OSError(errno.ENOSPC, "No space left on device")), "a file: No space left on device; make room"),
    ],
)
def test_the_users_mistake_is_the_end_of_one_run_and_goes_on_as_itself_in_one_of_several(
    error: Exception, message: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["somewhere/train.py"])
    with pytest.raises(SystemExit, match=f"^train.py: {message}"), plain_errors():
        raise error
    with pytest.raises(InputError, match=f"^{message}") as job, plain_errors(alone=False):
        raise error
    sent = pickle.loads(pickle.dumps(job.value))  # as a launcher sends it home
    assert (type(sent), str(sent)) == (InputError, str(job.value))
    assert caplog.messages == [str(job.value)]


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("error", [KeyError("a"), caused_by(TypeError("b")), FileNotFoundError(errno.ENOENT, "c")])
def test_any_other_error_is_left_as_it_is(error: Exception, alone: bool) -> None:
    with pytest.raises(type(error)), plain_errors(alone):
        raise error


def test_a_place_to_write_in_is_left_as_it_is_or_refused_by_its_key(tmp_path: Path) -> None:
    require_writable("out", tmp_path / "a" / "b.csv")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"^out=/proc/a/b: nothing can be written in /proc \(.*\); name another place"):
        require_writable("out", Path("/proc/a/b"))


@pytest.mark.parametrize(
    "address",
    [
        "HTTPS://token@server", "https://me:a,b@server/x", "S3://key:secret@bucket", "http://me:a/b@server",
        "http://me:a#b@server", "http://me:a[b@server", "[http://a:80,http://me@b]", "[http://a,http://me:b@c]",
    ],
)  # fmt: skip
def test_a_password_in_an_address_is_refused_however_it_is_written(address: str) -> None:
    with pytest.raises(InputError, match=r"^key: a user or password stands in the address") as caught:
        require_no_secret("key", address)
    assert str(caught.value).endswith("name the server alone")


@pytest.mark.parametrize(
    "address",
    [
        "http://server?to=me@home", "[http://server,me@home]", "http://server:80/@me", "sqlite:///a:b@c.db",
        "gs://bucket/a:b@c", "databricks://profile:prefix", "http://[::1]:80/a@b",
    ],
)  # fmt: skip
def test_an_at_sign_behind_the_server_and_a_colon_without_one_are_no_password(address: str) -> None:
    require_no_secret("key", address)


def test_where_a_password_belongs_is_told_by_the_addresss_key() -> None:
    with pytest.raises(InputError, match=r"^logger\.lightning\.tracking_uri: .*MLFLOW_TRACKING_PASSWORD in"):
        require_no_secret("logger", {"lightning": {"tracking_uri": "http://me:a@server"}})
    with pytest.raises(InputError, match=r"^WANDB_BASE_URL: .*WANDB_API_KEY in"):
        require_no_secret("WANDB_BASE_URL", "http://me:a@server")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(InputError, match=rf"out={tmp_path}: .* \(Permission denied\)"):
        require_writable("out", tmp_path)
