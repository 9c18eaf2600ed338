"""Ray runs a multirun's jobs side by side, each in its folder, and none finds anything of the one before it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lungdet.runs.folder import find_runs
from tests.calling import CHECKOUT, environment

pytest.importorskip("hydra_plugins.hydra_ray_launcher")
pytestmark = pytest.mark.slow

# Looks at the process of a job before the job and after it. No job begins before so many have come that far.
PROBE = """
import json, logging, os, signal, sys, time
from pathlib import Path
from hydra.experimental.callback import Callback
from lungdet.sweeps import programs

class Probe(Callback):
    def __init__(self, folder, together):
        self.folder, self.together = Path(folder), together
        programs.COMMAND = (sys.executable, str(self.folder / "evaluate.py"))

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
            "handlers": [type(handler).__name__ for handler in logging.getLogger().handlers],
            "level": logging.getLogger().level,
            "group": torch is not None and torch.distributed.is_initialized(),
        }
        (self.folder / f"{when}_{config.hydra.job.num}.json").write_text(json.dumps(state))
"""
# In the place of the report: what would be evaluated, and how many of its runs are finished by then.
EVALUATE = """
import sys
from pathlib import Path
folder = sys.argv[2].removeprefix("runs=")
finished = [path for path in Path(folder).glob("*/environment.json") if '"finished": "' in path.read_text()]
Path(__file__).with_name("evaluated").write_text(f"{folder} {len(finished)}")
"""
# What libraries set when they are imported, and Lightning when it seeds.
BY_LIBRARIES = (
    "KMP_", "LD_LIBRARY_PATH", "MLFLOW_", "NO_ALBUMENTATIONS", "PL_", "PYTORCH_NVML", "TORCHINDUCTOR_", "WANDB_",
)  # fmt: skip
# Other programs decide neither whether a worker is there in time nor whether it is ended for want of memory.
PATIENT = {
    "RAY_worker_register_timeout_seconds": "1800",
    "RAY_health_check_timeout_ms": "1800000",
    "RAY_memory_monitor_refresh_ms": "0",
}


def test_jobs_run_side_by_side_once_each_whatever_comes_of_others_and_are_then_evaluated(
    tmp_path: Path,
) -> None:
    """Three jobs, of two processes, of the first GPU, which fails on a CPU, and of one, on two cores.

    They are started where outputs are relative. No job begins before two have been started.
    """
    (tmp_path / "ray_probe.py").write_text(PROBE)
    (tmp_path / "evaluate.py").write_text(EVALUATE)
    cores = ["+hydra.launcher.ray.remote.num_cpus=1", "+hydra.launcher.ray.init.num_cpus=2"]
    probe = ["+hydra.callbacks.probe._target_=ray_probe.Probe", f"+hydra.callbacks.probe.folder={tmp_path}"]
    probe += ["+hydra.callbacks.probe.together=2", "+hydra.launcher.ray.init.include_dashboard=false"]
    small = ["data.size=64", "data.image_size=32", "data.num_workers=0", "trainer.max_epochs=1", "~degrade"]
    jobs = ["experiment=[paper,smoke]", "model=cnn", "trainer.devices=2,[0],1", "sweep.name=side_by_side", *small]
    command = [sys.executable, f"{CHECKOUT}/train.py", "-m", "hydra/launcher=ray", *cores, *probe, *jobs]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path) | PATIENT, capture_output=True, text=True)
    folder = tmp_path / "outputs/sweeps/side_by_side"
    assert folder.is_dir(), done.stdout[-3000:] + done.stderr[-3000:]
    assert "CPUAccelerator` should be an int > 0" in done.stderr
    assert done.returncode == 1

    runs = {run.config.trainer.devices: run for run in find_runs(tmp_path / "outputs/sweeps")}
    assert {run.folder.parent.name for run in runs.values()} == {"side_by_side"}
    assert {devices: run.finished for devices, run in runs.items()} == {1: True, 2: True}
    for devices in (1, 2):
        assert len(runs[devices].environment["processes"]) == devices
        assert (runs[devices].folder / "train.log").read_text().count("epoch 1/1") == 1
    assert (tmp_path / "evaluated").read_text() == f"{folder} 2"

    for job in (0, 1):
        before, after = (json.loads((tmp_path / f"{moment}_{job}.json").read_text()) for moment in ("before", "after"))
        changed = set(after.pop("environment").items()) ^ set(before.pop("environment").items())
        assert not {name for name, _ in changed if not name.startswith(BY_LIBRARIES)}
        assert after == before
