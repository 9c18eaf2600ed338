"""A multirun ends in one report on what it made, whether or not jobs fail, and its exit status stays its own."""

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lungdet.machine.commands import command, override
from lungdet.sweeps import reporting

SWEEP = "sweeps/a b=c [1] ü $x 'q'"

# The real Hydra, with a job that takes no time and an evaluation that says what it was given.
PROGRAM = """
from pathlib import Path
import sys
import hydra
from lungdet.sweeps import programs

programs.COMMAND = (sys.executable, str(Path(__file__).with_name("evaluate.py")))

@hydra.main(version_base="1.3", config_path=None, config_name=None)
def main(config):
    if config.job == "fails":
        raise ValueError("this job")
    if config.job == "interrupted":
        raise KeyboardInterrupt
    print("job done", flush=True)

main()
"""


def multirun(folder: Path, jobs: str, *, status: int = 0) -> tuple[int, str]:
    """Exit status and output of a multirun whose evaluation ends with `status`."""
    (folder / "train.py").write_text(PROGRAM)
    (folder / "evaluate.py").write_text(f"import sys; print('evaluated', *sys.argv[2:]); sys.exit({status})")
    report = "+hydra.callbacks={report: {_target_: lungdet.sweeps.reporting.Report}}"
    words = [sys.executable, "train.py", "-m", f"+job={jobs}", report, override("hydra.sweep.dir", SWEEP)]
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def test_the_report_follows_the_last_job(tmp_path: Path) -> None:
    status, printed = multirun(tmp_path, "a,b")
    assert status == 0
    assert printed.count("evaluated") == 1
    assert printed.rindex("job done") < printed.index(f"evaluated {override('runs', tmp_path / SWEEP)}")


@pytest.mark.parametrize("jobs", ["fails,b", "a,fails"])
def test_a_failed_job_keeps_neither_the_report_from_being_written_nor_its_own_status(tmp_path: Path, jobs: str) -> None:
    status, printed = multirun(tmp_path, jobs)
    assert status == 1
    assert "ValueError: this job" in printed
    assert printed.count("evaluated") == 1


def test_a_report_that_fails_is_said_plainly_and_leaves_the_status(tmp_path: Path) -> None:
    status, printed = multirun(tmp_path, "a,b", status=3)
    assert status == 0
    assert "no report was written: evaluate.py ended with status 3" in printed
    assert command("evaluate.py", override("runs", tmp_path / SWEEP)) in printed


def test_after_an_interruption_nothing_is_evaluated(tmp_path: Path) -> None:
    status, printed = multirun(tmp_path, "a,interrupted,b")
    assert status != 0
    assert "evaluated" not in printed


def test_the_report_is_logged_where_the_runs_were_and_follows_no_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, started = ["logger.project=lungs", "logger.job_type=mine", "seed=0,1"], []
    monkeypatch.setattr(
        subprocess, "run", lambda words, **_: started.append(words) or subprocess.CompletedProcess([], 0)
    )
    hydra = {"sweep": {"dir": str(tmp_path)}, "runtime": {"choices": {"logger": "wandb"}}}
    searching = ["find=lr,batch_size", "seed=0,1"]
    for project, find, task in (
        ("lungs", None, words),
        (None, None, words),
        (None, {"learning_rate": {}}, words),
        (None, None, searching),
    ):
        hydra["overrides"] = {"task": task}
        report = reporting.Report()
        report.on_multirun_start(OmegaConf.create({"hydra": hydra, "logger": {"project": project}, "find": find}))
        report.on_multirun_end(OmegaConf.create())
    asked = override("runs", tmp_path)
    assert [words[4:] for words in started] == [[asked, "logger=wandb", "logger.project=lungs"], [asked]]
