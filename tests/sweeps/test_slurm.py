"""A multirun's jobs go to SLURM and each is trained once; a job that loses its machine ends as if it had kept it."""

import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from lungdet.errors import InputError
from lungdet.machine import launching
from lungdet.runs.folder import Run, find_runs, load_run
from tests.calling import CHECKOUT
from tests.fake_slurm import Cluster

SMALL = (
    "data.patients={chestxray14: 20, montgomery: 20, shenzhen: 20}", "data.size=64", "data.image_size=32",
    "data.batch_size=4", "data.num_workers=0", "trainer.precision=32-true", "trainer.max_epochs=3", "logger=csv",
    "trainer.early_stopping=null",
)  # fmt: skip
PAIR = ("trainer.devices=2", "hydra.launcher.tasks_per_node=2")
SUBMITIT = ("-m", "hydra/launcher=submitit_slurm")


def submitting(cluster: Cluster, folder: Path, *arguments: str) -> subprocess.Popen:
    """A multirun that sends its jobs to the cluster and waits for them."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    command = [sys.executable, "train.py", *SUBMITIT, *SMALL, f"outputs={folder}", *arguments]
    return subprocess.Popen(command, cwd=CHECKOUT, env=cluster.environment, stderr=subprocess.PIPE, text=True)


# In the middle of the second epoch each task of the first job, if it has not been cut yet, leaves a file and waits for
# its end.
HOLD = """
import os, time
from pathlib import Path
from hydra.experimental.callback import Callback

class Hold(Callback):
    def __init__(self, folder):
        self.folder = Path(folder)

    def on_job_start(self, config, **_):
        if config.hydra.job.get("num"):
            return
        from lungdet.machine import ranks
        from lungdet.training.recording import Record
        end = Record.on_train_batch_end

        def hold(record, trainer, module, outputs, batch, index):
            end(record, trainer, module, outputs, batch, index)
            if (trainer.current_epoch, index) == (1, 1) and "SLURM_RESTART_COUNT" not in os.environ:
                (self.folder / f"held_{ranks.rank()}").touch()
                time.sleep(1800)  # it is ended before

        Record.on_train_batch_end = hold
"""


def holding(cluster: Cluster) -> list[str]:
    """Words of a command with which its first job is held in the second epoch until it is signalled."""
    (cluster.modules / "slurm_hold.py").write_text(HOLD)
    return ["+hydra.callbacks.hold._target_=slurm_hold.Hold", f"+hydra.callbacks.hold.folder={cluster.folder}"]


def signal_held(cluster: Cluster, number: signal.Signals, running: Callable[[], bool]) -> str:
    """Signal the first job once both of its tasks are held; its id."""
    end = time.monotonic() + 1800
    while len([*cluster.folder.glob("held_*")]) < 2:
        assert running(), "it ended before"
        assert time.monotonic() < end
        time.sleep(0.05)
    job = cluster.jobs()[0]
    cluster.signal(job, number)
    return job


def epochs(run: Run) -> list[int]:
    """Those that were trained, as the log has them."""
    return [int(epoch) for epoch in re.findall(r"epoch (\d)/3", (run.folder / "train.log").read_text())]


def weights(run: Run) -> dict[str, torch.Tensor]:
    return torch.load(run.checkpoint("last"), weights_only=True)["state_dict"]


def same_run(one: Run, other: Run) -> bool:
    """To the last bit."""
    of_one, of_other = weights(one), weights(other)
    return of_one.keys() == of_other.keys() and all(torch.equal(of_one[name], of_other[name]) for name in of_one)


@pytest.mark.slow
def test_slurm_is_asked_for_the_machines_tasks_and_gpus_that_the_command_names(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "cluster")
    (cluster.bin / "sbatch").write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/script\nexit 1\n')  # no job is needed
    keys = ["nodes=2", "tasks_per_node=4", "gpus_per_node=4", "partition=lungs", "timeout_min=720"]
    words = [f"hydra.launcher.{key}" for key in keys]
    process = submitting(cluster, tmp_path, "model=cnn,cnn_lstm", "trainer=ddp", "trainer.num_nodes=2", *words)
    _, error = process.communicate(timeout=1800)
    assert (tmp_path / "script").exists(), error
    lines = (tmp_path / "script").read_text().splitlines()
    options = ["nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "partition=lungs", "time=720", "signal=USR2@120"]
    assert {f"#SBATCH --{option}" for option in [*options, "array=0-1%2"]} <= set(lines)


@pytest.mark.parametrize(("devices", "nodes"), [(1, 1), ("auto", 1), (4, 1), (2, 2), (2, 3), ("auto", 2)])
def test_tasks_that_the_trainer_is_not_told_of_are_refused(monkeypatch, devices: int | str, nodes: int) -> None:
    for name, value in {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_NNODES": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    trainer = OmegaConf.create({"devices": devices, "num_nodes": nodes, "accelerator": "cpu"})
    if nodes == 2:
        assert launching.processes(trainer) == 2
    else:
        with pytest.raises(InputError, match=r"give trainer\.devices=2 trainer\.num_nodes=2"):
            launching.processes(trainer)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all, so that phantoms are drawn and prepared once."""
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def sweep(outputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[Run]]:
    """The folder of two jobs of two tasks each, both at once, whose first is cut; who queued it again; their runs.

    The folder's name is decided by the time at which it was started. The jobs differ in a patience that nobody loses.
    """
    cluster = Cluster(tmp_path_factory.mktemp("cluster") / "cluster")
    process = submitting(cluster, outputs, "schedule.patience=4,5", *PAIR, *holding(cluster))
    job = signal_held(cluster, signal.SIGUSR2, lambda: process.poll() is None)
    _, error = process.communicate(timeout=1800)
    assert process.returncode == 0, error[-3000:]
    assert [cluster.wait(number) for number in cluster.jobs()] == ["COMPLETED", "COMPLETED"]
    [folder] = (outputs / "sweeps").iterdir()
    runs = sorted(find_runs(folder), key=lambda run: run.config.schedule.patience)
    return folder, [line.replace(job, "JOB") for line in cluster.requeued], runs


@pytest.mark.slow
def test_each_job_is_trained_once_by_all_of_its_tasks_in_a_folder(sweep: tuple[Path, list[str], list[Run]]) -> None:
    folder, _, runs = sweep
    assert [run.config.schedule.patience for run in runs] == [4, 5]
    for run in runs:
        assert run.finished
        assert len(run.environment["processes"]) == 2
        assert len(pd.read_csv(run.folder / "metrics.csv")) == 3
        assert epochs(run) == [1, 2, 3]
    results = sorted(folder.glob(".submitit/*/*_result.pkl"))
    losses = [pickle.loads(path.read_bytes())[1].return_value for path in results]
    assert losses == [runs[0].best_loss] * 2 + [runs[1].best_loss] * 2


@pytest.mark.slow
def test_a_job_that_submitit_queues_again_goes_on_in_its_folder_and_ends_as_if_it_had_not_been_cut(
    sweep: tuple[Path, list[str], list[Run]],
) -> None:
    _, requeued, (cut, whole) = sweep
    assert requeued == ["requeue JOB_0 by rank 0"]
    assert (cut.folder / "train.log").read_text().count("continuing") == 1
    assert "continuing" not in (whole.folder / "train.log").read_text()
    assert same_run(cut, whole)


@pytest.mark.slow
def test_a_job_of_a_script_is_queued_again_on_its_signal_and_ends_as_if_it_had_not_been_cut(
    sweep: tuple[Path, list[str], list[Run]], outputs: Path, tmp_path: Path
) -> None:
    cluster, run_dir, cwd = Cluster(tmp_path / "cluster"), tmp_path / "run", tmp_path / "cwd"
    cwd.mkdir()
    (cwd / "hpc_ckpt_1.ckpt").write_text("of another run, as Lightning would leave it here")
    words = (*SMALL, "trainer.devices=2", f"outputs={outputs}", *holding(cluster))
    choices = " ".join(f"'{word}'" for word in words)
    (tmp_path / "job.sh").write_text(
        "#!/bin/bash\n#SBATCH --nodes=1\n#SBATCH --ntasks-per-node=2\n#SBATCH --signal=SIGUSR1@90\n"
        f"cd {cwd}\nsrun {sys.executable} {CHECKOUT}/train.py hydra.run.dir={run_dir} {choices}\n"
    )
    subprocess.run(["sbatch", tmp_path / "job.sh"], env=cluster.environment, check=True)
    job = signal_held(cluster, signal.SIGUSR1, lambda: cluster.state(cluster.jobs()[0]) == "RUNNING")
    assert cluster.wait(job) == "COMPLETED", cluster.output(job)
    assert cluster.requeued == [f"requeue {job} by rank 0"]
    assert cluster.output(job).count("the job is queued again") == 1
    run = load_run(run_dir)
    assert run.finished
    assert epochs(run) == [1, 2, 3]
    assert same_run(run, sweep[-1][1])
    assert [path.name for path in cwd.iterdir()] == ["hpc_ckpt_1.ckpt"]
    assert not [*run_dir.rglob("hpc_ckpt*")]


SIGNALLED = """
import os, signal, sys, logging
from lungdet.machine import requeue
logging.basicConfig()
{before}
requeue.on_signal()
{then}
os.kill(os.getpid(), signal.SIGUSR1)
print("went on")
"""
IN_A_CHILD = "child = os.fork()\nif child: os.wait(); os._exit(0)"


def signalled(
    tmp_path: Path, before: str = "", then: str = "", **slurm: str
) -> tuple[subprocess.CompletedProcess, list]:
    cluster = Cluster(tmp_path / "cluster")
    (cluster.folder / "7").mkdir()
    (cluster.folder / "9_3").mkdir()
    environment = {name: value for name, value in cluster.environment.items() if not name.startswith("SLURM_")}
    command = [sys.executable, "-c", SIGNALLED.format(before=before, then=then)]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment | slurm, capture_output=True, text=True)
    return done, cluster.requeued


JOB = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}


def test_the_first_task_queues_the_job_again_and_ends(tmp_path: Path) -> None:
    done, requeued = signalled(tmp_path, **JOB)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the job is queued again" in done.stderr
    assert requeued == ["requeue 7 by rank 0"]


def test_a_job_of_an_array_is_queued_again_by_its_place_in_it(tmp_path: Path) -> None:
    _, requeued = signalled(tmp_path, **JOB, SLURM_ARRAY_JOB_ID="9", SLURM_ARRAY_TASK_ID="3")
    assert requeued == ["requeue 9_3 by rank 0"]


@pytest.mark.parametrize(("then", "rank"), [("", "1"), (IN_A_CHILD, "0")], ids=["another task", "a loader's process"])
def test_nobody_else_queues_it_again(tmp_path: Path, then: str, rank: str) -> None:
    done, requeued = signalled(tmp_path, then=then, **JOB | {"SLURM_PROCID": rank})
    assert (done.returncode, done.stdout, requeued) == (0, "went on\n", [])


@pytest.mark.parametrize("found", [True, False])
def test_training_goes_on_where_slurm_does_not_take_the_job_back_into_the_queue(tmp_path: Path, found: bool) -> None:
    (tmp_path / "bin").mkdir()
    if found:
        (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\nexit 3\n")
        (tmp_path / "bin" / "scontrol").chmod(0o755)
    path = f"os.environ['PATH'] = {str(tmp_path / 'bin')!r}"
    done, _ = signalled(tmp_path, before=path, **JOB)
    assert (done.returncode, done.stdout) == (0, "went on\n")
    assert f"scontrol requeue 7: {3 if found else '[Errno 2]'}" in done.stderr


def test_the_signal_is_left_to_whoever_answers_it_already_and_outside_slurm_ends_the_process(tmp_path: Path) -> None:
    theirs = "signal.signal(signal.SIGUSR1, lambda *_: print('theirs'))"
    done, requeued = signalled(tmp_path / "theirs", before=theirs, **JOB)
    assert (done.stdout, requeued) == ("theirs\nwent on\n", [])
    done, requeued = signalled(tmp_path / "outside")
    assert (done.returncode, requeued) == (-signal.SIGUSR1, [])
