"""Ray runs a multirun's jobs side by side, each in its folder, and none finds anything of the one before it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lungdet.runs.folder import Run, find_runs
from tests.calling import CHECKOUT

pytest.importorskip("hydra_plugins.hydra_ray_launcher")
pytestmark = pytest.mark.slow

# Looks at the process of a job before the job and after it. No job begins before so many have come that far.
PROBE = """
import json, logging, os, signal, sys, time
from pathlib import Path
from hydra.experimental.callback import Callback

class Probe(Callback):
    def __init__(self, folder, together):
        self.folder, self.together = Path(folder), together

    def on_job_start(self, config, **_):
        self.look("before", config)
        end = time.monotonic() + 1800
        while len(list(self.folder.glob("before_*.json"))) < self.together:
            assert time.monotonic() < end, "no other job has come"
            time.sleep(0.05)

    def on_job_end(self, config, **_):
        self.look("after", config)

    def look(self, when, config):
        torch = sys.modules.get("torch")
        state = {
            "environment": dict(os.environ),
            "cwd": os.getcwd(),
            "signals": {str(number): str(signal.getsignal(number)) for number in signal.valid_signals()},
            "handlers": [type(one).__name__ for one in logging.getLogger().handlers],
            "level": logging.getLogger().level,
            "group": torch is not None and torch.distributed.is_initialized(),
        }
        (self.folder / f"{when}_{config.hydra.job.num}.json").write_text(json.dumps(state))
"""
# Other programs decide neither whether a worker is there in time nor whether it is ended for want of memory.
PATIENT = {
    "RAY_worker_register_timeout_seconds": "1800",
    "RAY_health_check_timeout_ms": "1800000",
    "RAY_memory_monitor_refresh_ms": "0",
}


def sweep(
    folder: Path, *arguments: str, cores: int, together: int = 1
) -> tuple[list[Run], subprocess.CompletedProcess]:
    """A multirun on so many cores, one a job, started in a folder in which outputs are relative.

    No job begins before so many have been started `together`.
    """
    (folder / "ray_probe.py").write_text(PROBE)
    cores_given = ["+hydra.launcher.ray.remote.num_cpus=1", f"+hydra.launcher.ray.init.num_cpus={cores}"]
    probe = ["+hydra.callbacks.probe._target_=ray_probe.Probe", f"+hydra.callbacks.probe.folder={folder}"]
    probe += [f"+hydra.callbacks.probe.together={together}"]
    quiet = ["+hydra.launcher.ray.init.include_dashboard=false", "data.num_workers=0", "sweep.name=side_by_side"]
    command = [sys.executable, f"{CHECKOUT}/train.py", "-m", "hydra/launcher=ray", *cores_given, *probe, *quiet]
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | PATIENT | {"PYTHONPATH": path}
    done = subprocess.run([*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert (folder / "outputs/sweeps/side_by_side").is_dir(), done.stdout[-3000:] + done.stderr[-3000:]
    return find_runs(folder / "outputs/sweeps"), done


def test_jobs_run_side_by_side_once_each_and_the_experiment_ends_in_its_report(tmp_path: Path) -> None:
    runs, done = sweep(tmp_path, "experiment=[paper,smoke]", "trainer.max_epochs=1", cores=2, together=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(runs) == 2
    assert all(run.finished and run.folder.parent.name == "side_by_side" for run in runs)
    assert [(run.folder / "train.log").read_text().count("epoch 1/1") for run in runs] == [1, 1]
    assert (tmp_path / "outputs/sweeps/side_by_side/report/report.html").is_file(), done.stdout[-3000:]


def test_a_worker_is_left_as_it_was_by_a_job_of_two_processes_and_by_one_that_fails(tmp_path: Path) -> None:
    runs, done = sweep(tmp_path, "experiment=smoke", "trainer.max_epochs=1", "trainer.devices=2,0,1", cores=1)
    assert "trainer.devices=0: at least one is needed" in done.stderr
    assert done.returncode == 1
    ended = {run.config.trainer.devices: run for run in runs}
    assert {devices: run.finished for devices, run in ended.items()} == {0: False, 1: True, 2: True}
    assert [len(ended[devices].environment["processes"]) for devices in (1, 2)] == [1, 2]

    for job in (0, 1):
        before, after = (json.loads((tmp_path / f"{when}_{job}.json").read_text()) for when in ("before", "after"))
        left = set(after.pop("environment").items()) ^ set(before.pop("environment").items())
        assert not {name for name, _ in left if not name.startswith(("KMP_", "NO_ALBUMENTATIONS", "WANDB_"))}
        assert after == before
