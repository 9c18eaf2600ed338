"""A cluster that is not there: sbatch, srun, scontrol and sacct as one script each, enough for jobs to run here.

What a job sees of SLURM is as the manual has it: the variables of batch script and task, array jobs with an id of their
own, a script that is started from its beginning after `scontrol requeue`, which first ends the job's tasks. Every
"node" is this machine, and signals reach a task's own process, as with SLURM's usual cgroups.
"""

import contextlib
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path

COMMANDS = ("sbatch", "srun", "scontrol", "sacct")


class Cluster:
    """The commands in a folder to put on PATH, and what became of the jobs.

    Args:
        folder: new; takes a folder a job with its script, its tasks' process ids and its state.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin, self.modules = folder, folder / "bin", folder / "modules"
        self.bin.mkdir(parents=True)
        self.modules.mkdir()
        for name in COMMANDS:
            command = self.bin / name
            command.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {folder} {name} "$@"\n')
            command.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """For whoever submits; jobs may import what lies in `modules`."""
        paths = {"PATH": self.bin, "PYTHONPATH": self.modules}
        return os.environ | {name: f"{first}{os.pathsep}{os.environ.get(name, '')}" for name, first in paths.items()}

    @property
    def scripts(self) -> list[str]:
        """What was submitted."""
        return [path.read_text() for path in sorted(self.folder.glob("submitted_*"))]

    @property
    def requeued(self) -> list[str]:
        """A line a call of `scontrol requeue`: the job, and the rank of the process that called."""
        calls = self.folder / "requeued"
        return calls.read_text().splitlines() if calls.exists() else []

    def output(self, job: str) -> str:
        """A job's output, for a failed test to show."""
        return "".join(path.read_text()[-4000:] for path in self.folder.glob(f"{job}/*.log"))

    def jobs(self) -> list[str]:
        """The ids by which SLURM knows the jobs, in the order in which they were submitted."""
        return sorted(path.parent.name for path in self.folder.glob("*/state") if not path.parent.is_symlink())

    def state(self, job: str) -> str:
        """RUNNING, COMPLETED or FAILED."""
        return (self.folder / job / "state").read_text()

    def signal(self, job: str, number: signal.Signals) -> None:
        """What SLURM does before it takes the machine away: the signal to every task."""
        for path in self.folder.glob(f"{job}/task_*"):
            os.kill(int(path.read_text()), number)

    def wait(self, job: str, seconds: float = 1800) -> str:
        """The state of a job when it is done."""
        end = time.monotonic() + seconds
        while self.state(job) == "RUNNING" and time.monotonic() < end:
            time.sleep(0.2)
        return self.state(job)


def sbatch(folder: Path, script: str) -> None:
    """Submit: each job of an array in the background, with an id of its own."""
    first, claims = _claimed(zlib.crc32(str(folder).encode()) + len(list(folder.glob("submitted_*"))))
    text = Path(script).read_text()
    (folder / f"submitted_{first}").write_text(text)
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, re.MULTILINE))
    options = {name: shlex.split(value)[0] for name, value in options.items()}
    nodes, per_node = int(options.get("nodes", 1)), int(options.get("ntasks-per-node", 1))
    variables = {
        "SLURM_JOB_NAME": options.get("job-name", Path(script).name),
        "SLURM_NNODES": nodes,
        "SLURM_JOB_NUM_NODES": nodes,
        "SLURM_NTASKS": nodes * per_node,
        "SLURM_NTASKS_PER_NODE": per_node,
        "SLURM_NODELIST": ",".join(["localhost"] * nodes),
        "SLURM_JOB_NODELIST": ",".join(["localhost"] * nodes),
        "SLURM_PROCID": 0,
        "SLURM_LOCALID": 0,
        "SLURM_NODEID": 0,
    }
    last = int(re.match(r"0-(\d+)", options["array"])[1]) if "array" in options else 0
    for index in range(last + 1):
        job = folder / str(first + index)
        job.mkdir()
        _write(job / "state", "RUNNING")
        array = {"SLURM_ARRAY_JOB_ID": first, "SLURM_ARRAY_TASK_ID": index} if "array" in options else {}
        if array:
            (folder / f"{first}_{index}").symlink_to(job.name)
        of_job = {name: str(value) for name, value in (variables | array | {"SLURM_JOB_ID": job.name}).items()}
        with (job / "runner.log").open("w") as log:
            command = [sys.executable, __file__, str(folder), "run_job", script]
            subprocess.Popen(
                command,
                env=os.environ | of_job,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[claim.fileno() for claim in claims],
            )
    print(f"Submitted batch job {first}")


def run_job(folder: Path, script: str) -> None:
    """Run a job's script until it ends without having been requeued."""
    job = folder / os.environ["SLURM_JOB_ID"]
    restarts = 0
    while True:
        if restarts:
            os.environ["SLURM_RESTART_COUNT"] = str(restarts)
        with (job / "batch.log").open("a") as log:
            running = subprocess.Popen(["bash", script], stdout=log, stderr=log)
        while running.poll() is None and not (job / "requeue").exists():
            time.sleep(0.1)
        if not (job / "requeue").exists():
            _write(job / "state", "FAILED" if running.returncode else "COMPLETED")
            return
        # SLURM takes its time, too: the task that has asked ends by itself, and says why, before the others are ended.
        with contextlib.suppress(ProcessLookupError):
            asking = os.pidfd_open(int((job / "requeue").read_text()))
            select.select([asking], [], [], 600)
            os.close(asking)
        for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):  # KillWait is 30 seconds
            _kill(job, number)
            end = time.monotonic() + patience
            while running.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
        running.kill()
        (job / "requeue").unlink()
        restarts += 1


def srun(folder: Path, *arguments: str) -> None:
    """Start a job's tasks and wait for them all."""
    given, files = list(arguments), {}
    while given[0].startswith("--"):
        option = given.pop(0)
        if option in ("--output", "--error"):
            files[option] = given.pop(0)
    variables, job = os.environ, folder / os.environ["SLURM_JOB_ID"]
    per_node, tasks = int(variables["SLURM_NTASKS_PER_NODE"]), []
    for rank in range(int(variables["SLURM_NTASKS"])):
        where = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank % per_node, "SLURM_NODEID": rank // per_node}
        mine = {name: str(value) for name, value in (where | {"SLURM_STEP_ID": 0}).items()}
        # %A and %a are the array's, %t the task's
        names = {"%t": str(rank), "%j": job.name}
        names |= {"%A": variables.get("SLURM_ARRAY_JOB_ID", ""), "%a": variables.get("SLURM_ARRAY_TASK_ID", "")}
        out = re.sub("%[tjAa]", lambda match, names=names: names[match[0]], files.get("--output", f"{job}/task%t.log"))
        error = re.sub("%[tjAa]", lambda match, names=names: names[match[0]], files.get("--error", out))
        with open(out, "a") as output, open(error, "a") as errors:
            # It writes its own id down, before anybody could wait for what it does.
            command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', f"{job}/task_{rank}", *given]
            task = subprocess.Popen(command, env=variables | mine, stdout=output, stderr=errors, start_new_session=True)
        tasks.append(task)
    sys.exit(max(abs(task.wait()) for task in tasks))


def scontrol(folder: Path, what: str, job: str) -> None:
    """Requeue a job: written down with the rank that asked for it; `run_job` then ends its tasks."""
    with (folder / "requeued").open("a") as calls:
        calls.write(f"{what} {job} by rank {os.environ['SLURM_PROCID']}\n")
    _write(folder / job / "requeue", str(os.getppid()))


def sacct(folder: Path, *_: str) -> None:
    """The state of every job."""
    print("JobID|State|NodeList")
    for state in folder.glob("*/state"):
        print(f"{state.parent.name}|{state.read_text()}|localhost")


def _claimed(start: int) -> tuple[int, list[socket.socket]]:
    """The first of ten ids whose ports are free, and what claims them, on this machine, for as long as it is open.

    Lightning makes a job's port of its id. Nobody binds one that is claimed, but for who shares it with a socket that
    does not listen, as torch's store does for the job.
    """
    for first in (1000 + 10 * ((start + tried) % 900) for tried in range(900)):
        claims = [socket.socket() for _ in range(10)]
        try:
            for index, claim in enumerate(claims):
                claim.bind(("", 15000 + first + index))
                claim.setsockopt(
                    socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
                )  # not before: another cluster would share it
        except OSError:
            for claim in claims:
                claim.close()
        else:
            return first, claims
    raise OSError("no ten ports are free")


def _write(path: Path, text: str) -> None:
    """Whoever reads the file meanwhile finds all of the text or none."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def _kill(job: Path, number: signal.Signals) -> None:
    for path in job.glob("task_*"):
        try:
            if number == signal.SIGKILL:
                os.killpg(int(path.read_text()), number)
            else:
                os.kill(int(path.read_text()), number)
        except ProcessLookupError:
            pass


if __name__ == "__main__":
    globals()[sys.argv[2]](Path(sys.argv[1]), *sys.argv[3:])
