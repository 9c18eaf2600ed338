"""Several processes train one run as one would: the same losses, each test image once, one folder, one writer."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

import train
from lungdet.data.serving.serving import Serving
from lungdet.errors import InputError
from lungdet.evaluation.statistics import metrics
from lungdet.machine import hardware, launching, ranks
from lungdet.runs import starting
from lungdet.runs.folder import Run, find_runs, load_run
from lungdet.training import fitting
from lungdet.training.trainer import build_trainer
from tests.calling import CHECKOUT, call, environment, output
from tests.small_runs import configured, small, trained


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 small images of as many patients; a bright disc is a nodule, which of a third nobody noted; no effusion."""
    folder = tmp_path_factory.mktemp("clinic")
    generator = np.random.default_rng(0)
    rows = []
    for patient in range(96):
        image = generator.integers(0, 80, (32, 32)).astype(np.uint8)
        if patient % 2:
            cv2.circle(image, tuple(int(c) for c in generator.integers(8, 24, 2)), 6, 200, -1)
        cv2.imwrite(str(folder / f"{patient}.png"), image)
        nodule = patient % 2 if generator.random() > 1 / 3 else None
        rows.append({"path": f"{patient}.png", "patient_id": patient, "abnormal": patient % 2, "nodule": nodule})
        rows[-1]["effusion"] = 0
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


PLAIN = ("augment=none", "model.dropout=0", "trainer.early_stopping=null")
# Layer norm instead of batch norm, which would see each process's images apart on a CPU.
NORMED = ("model/backbone=timm", "model.backbone.name=test_convnext", "model.backbone.pretrained=false")
THIRDS = "data.fractions=[0.6666667,0.1666667,0.1666666]"  # 64 images are trained on, which two processes share evenly


# train.py, changed before it begins; so are the processes that it starts, which import the main module, too.
CHANGED = """
import os, signal, time
from lungdet.machine import ranks
from lungdet.training.recording import Record
{change}
if __name__ == "__main__":
    exec(compile(open("train.py").read(), "train.py", "exec"))
"""
# In the second epoch of the job of two the second process dies, and the first has no error of its own meanwhile.
DYING = """
begin = Record.on_train_epoch_start
def dies(record, trainer, module):
    if trainer.current_epoch == 1 and ranks.count() == 2:
        processes = ranks.gathered(os.getpid())
        if ranks.rank() == 0:
            os.kill(processes[1], signal.SIGKILL)
        time.sleep(600)  # it is ended before
    begin(record, trainer, module)
Record.on_train_epoch_start = dies
"""


def run_changed(folder: Path, change: str, *arguments: str) -> subprocess.CompletedProcess:
    (folder / "changed.py").write_text(CHANGED.format(change=change))
    words = [sys.executable, str(folder / "changed.py"), *arguments]
    return subprocess.run(words, cwd=CHECKOUT, env=environment(), capture_output=True, text=True, timeout=1800)


# What torchrun starts twice: these commands, one after the other.
COMMANDS = """
import train
from tests.calling import call
for words in {commands}:
    done = call(train, *words)
    print(done.returncode, done.stdout, done.stderr, flush=True)
"""


def torchrun(folder: Path, *commands: list[str]) -> list[str]:
    """What each of two processes prints of the commands: status, output and errors of each."""
    (folder / "commands.py").write_text(COMMANDS.format(commands=commands))
    processes = ["--standalone", "--nproc-per-node=2", "--redirects=3", "--log-dir=log"]
    words = [sys.executable, "-m", "torch.distributed.run", *processes, "commands.py"]
    subprocess.run(words, cwd=folder, env=environment(), timeout=1800, check=True)
    return [next(folder.glob(f"log/*/attempt_0/{rank}/stdout.log")).read_text() for rank in (0, 1)]


def assert_ran_once(run: Run, processes: int, epochs: int) -> None:
    """Finished, by so many processes that trained the same, each epoch once, each test image predicted once."""
    assert run.finished
    assert len(run.environment["processes"]) == processes
    assert pd.read_csv(run.folder / "metrics.csv")["epoch"].tolist() == list(range(epochs))
    split = pd.read_csv(run.folder / "split.csv")
    predicted = run.predictions("test")["image_id"]
    assert predicted.is_unique
    assert set(predicted) == set(split.loc[split["split"] == "test", "image_id"])
    assert (run.folder / "train.log").read_text().count("run folder") == 1


@pytest.fixture(scope="module")
def pair(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trial of a search, trained by two processes that cannot share its test part evenly."""
    folder = tmp_path_factory.mktemp("pair")
    search = ["sweep=optuna", "sweep.name=find", "sweep.trials=1", "model=cnn"]
    # Gradients of two batches added up before they are averaged among the processes, too.
    several = ["trainer.devices=2", "data.batch_size=8", "trainer.accumulate_grad_batches=2"]
    output(train, *small(folder, table), *PLAIN, *search, *several, "data.limit=85", "trainer.max_epochs=1")
    [run] = find_runs(folder / "sweeps" / "find")
    return run


@pytest.mark.slow
def test_a_trial_of_a_search_is_trained_once_by_two_processes(pair: Run) -> None:
    assert_ran_once(pair, processes=2, epochs=1)
    assert pair.config.model.learning_rate != 1e-3


@pytest.mark.slow
def test_metrics_of_a_test_part_that_processes_cannot_share_evenly_count_each_image_once(pair: Run) -> None:
    test = pair.predictions("test")
    assert len(test) % 2 == 1
    correct = (test["probability_abnormal"] > 0.5) == test["target_abnormal"]
    assert pair.environment["test"]["accuracy"] == pytest.approx(correct.mean(), abs=1e-6)
    area = metrics.auroc(test["target_abnormal"].to_numpy(), test["probability_abnormal"].to_numpy())
    assert pair.environment["test"]["auroc"] == pytest.approx(area, abs=1e-5)


@pytest.mark.slow
def test_a_sweep_of_mixed_device_counts_runs_each_job_once_though_one_dies_and_the_next_command_goes_on(
    table: Path, tmp_path: Path
) -> None:
    jobs = ["-m", "trainer.devices=2,[0],1", "sweep.name=mixed"]  # of the first GPU, which fails on a CPU
    grid = [*jobs, *small(tmp_path, table), *PLAIN, "trainer.max_epochs=2"]
    first = run_changed(tmp_path, DYING, *grid)
    assert first.returncode == 1
    assert "process 1 of 2 ended with status -9" in first.stderr
    runs = {run.config.trainer.devices: run for run in find_runs(tmp_path / "sweeps" / "mixed")}
    assert {devices: run.finished for devices, run in runs.items()} == {2: False, 1: True}
    assert "CPUAccelerator` should be an int > 0" in first.stdout  # and nothing is left of it
    end = runs[1].environment["finished"]
    assert call(train, *grid).returncode == 1
    assert "continuing" in (runs[2].folder / "train.log").read_text()
    for devices in (1, 2):
        assert_ran_once(runs[devices], processes=devices, epochs=2)
    assert load_run(runs[1].folder).environment["finished"] == end
    assert len(find_runs(tmp_path / "sweeps" / "mixed")) == 2


# One step an epoch, so that each step's loss is written down; half of them with a backbone that is left alone.
STEPS = (
    "trainer.max_epochs=8", THIRDS, *NORMED, "schedule=onecycle", "model.warm_up=1", "model.backbone.unfreeze_at=4",
    "model.backbone.layer_decay=0.9",
)  # fmt: skip


@pytest.fixture(scope="module")
def launched(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """What torchrun's processes printed of a run and of a sweep, every second job of which fails; their outputs."""
    folder = tmp_path_factory.mktemp("torchrun")
    where = [*small(folder, table), *PLAIN, "trainer=ddp", "trainer.accelerator=cpu"]
    grid = ["task=abnormal,findings", "model.sequence=diagonals,rows", *STEPS, "data.batch_size=32"]
    return torchrun(folder, [*where, "trainer.max_epochs=1"], ["-m", *where, *grid]), folder


@pytest.fixture(scope="module")
def sweep(launched: tuple[list[str], Path]) -> dict[tuple[str, str], Run]:
    """By task and sequence the runs of the sweep."""
    [jobs] = (launched[1] / "sweeps").iterdir()
    return {(run.config.task, run.config.model.sequence): run for run in find_runs(jobs)}


@pytest.mark.slow
def test_torchrun_trains_one_run(launched: tuple[list[str], Path]) -> None:
    printed, folder = launched
    assert [text[:2] for text in printed] == ["0 ", "0 "]
    assert [text.count("epoch 1/1") for text in printed] == [1, 0]
    [run] = find_runs(folder / "runs")
    assert_ran_once(run, processes=2, epochs=1)


@pytest.mark.slow
def test_a_sweep_that_torchrun_starts_trains_one_run_a_job_though_some_fail(
    launched: tuple[list[str], Path], sweep: dict[tuple[str, str], Run]
) -> None:
    first, second = launched[0]
    assert "model.sequence=diagonals: one of" in first.rpartition("\n1 ")[2]
    assert [text.count("epoch 8/8") for text in (first, second)] == [2, 0]
    assert {*sweep} == {("abnormal", "rows"), ("findings", "rows")}  # what is refused leaves no folder
    for run in sweep.values():
        assert_ran_once(run, processes=2, epochs=8)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["abnormal", "findings"])
def test_losses_and_predictions_of_two_processes_are_those_of_one(
    sweep: dict[tuple[str, str], Run], table: Path, tmp_path: Path, task: str
) -> None:
    """Of the findings many are unknown."""
    alone = configured(tmp_path, table, *PLAIN, f"task={task}", *STEPS, "data.batch_size=64")
    runs = trained(alone), sweep[task, "rows"]
    losses = [pd.read_csv(run.folder / "metrics.csv")[["train/loss", "val/loss"]].to_numpy() for run in runs]
    assert losses[0].shape == (8, 2)
    assert np.ptp(losses[0][:, 0]) > 0.01  # it learns, so that agreeing means something
    assert np.abs(losses[0] - losses[1]).max() < 1e-4
    assert [len(run.environment["processes"]) for run in runs] == [1, 2]
    alone, together = (run.predictions("test") for run in runs)
    assert alone["image_id"].tolist() == together["image_id"].tolist()
    logits = alone.filter(regex="^logit_").columns
    assert np.allclose(alone[logits], together[logits], atol=1e-3)


@pytest.mark.parametrize(("gpus", "processes", "together"), [(True, 2, True), (True, 1, False), (False, 2, False)])
def test_batch_norm_is_of_all_images_where_several_gpus_train(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: bool, processes: int, together: bool
) -> None:
    with starting.start(configured(tmp_path, table)) as run:
        model = fitting.build_model(run)
        monkeypatch.setattr(ranks, "count", lambda: processes)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
        monkeypatch.setattr(lightning, "Trainer", lambda **options: options)
        arithmetic = hardware.Arithmetic("32-true", "channels_last", "")
        assert build_trainer(run, model, arithmetic)["sync_batchnorm"] is together


def test_processes_that_do_not_train_the_same_are_refused(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "gathered", lambda mine: [mine, mine | {"store": "another"}])
    with pytest.raises(InputError, match="do not train the same"):
        trained(configured(tmp_path, table))


@pytest.mark.parametrize(
    ("devices", "processes"), [(1, 1), (2, 2), ("3", 3), ("0,2", 2), ([1, 3], 2), ([5], 1), ("auto", 1), (-1, 1)]
)
def test_devices_are_counted_as_lightning_does(devices: object, processes: int) -> None:
    trainer = {"devices": devices, "accelerator": "cpu", "num_nodes": 1}
    assert launching.processes(OmegaConf.create(trainer)) == processes


def test_which_process_this_is_is_read_from_torchrun_and_from_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (ranks.rank(), ranks.count(), ranks.count_here()) == (0, 1, 1)
    for name, value in {"PROCID": 5, "NTASKS": 8, "NNODES": 2, "JOB_NAME": "train"}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    assert (ranks.rank(), ranks.count(), ranks.count_here()) == (5, 8, 4)
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": "a"}.items():
        monkeypatch.setenv(name, str(value))
    assert (ranks.rank(), ranks.count(), ranks.count_here()) == (1, 2, 2)
    alone = ranks.environment_of_one()
    monkeypatch.setattr(os, "environ", alone)
    assert (ranks.rank(), ranks.count()) == (0, 1)


def test_workers_are_as_many_as_the_cores_that_a_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def workers(allowed: int, processes: int) -> int:
        monkeypatch.setattr(hardware, "cores", lambda: allowed)
        monkeypatch.setattr(ranks, "count_here", lambda: processes)
        return Serving().workers

    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert [workers(12, 1), workers(12, 2), workers(4, 2), workers(1, 1)] == [8, 5, 3, 0]


def test_a_shell_within_an_allocation_is_no_task_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PROCID": 0, "NTASKS": 8, "JOB_NAME": "interactive"}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    assert ranks.count() == 1


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    run.record(a=1)
    run.write_predictions("test", pd.DataFrame({"a": [1]}))
    run.finish()
    assert list(tmp_path.iterdir()) == []
