"""SLURM's own words: what it says of a job, and what it is asked to do."""

import getpass
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from nucleiseg.errors import RunError

logger = logging.getLogger(__name__)

_TIMEOUT_S = 60

REQUEUE_STATUS = 85
"""Exit status of a job that wants to be requeued and cannot say so itself, since a
container rarely holds SLURM's commands: its batch script asks for it."""

COUNT_IS_ONE_PROCESS = "a job of a count is led by one process"
TRAINING_IS_ONE_PROCESS = (
    "training uses one process on one node: Keras 3 does not train under TensorFlow's "
    "MultiWorkerMirroredStrategy"
)


@dataclass(frozen=True)
class QueuedJob:
    """A job in the queue."""

    job_id: str
    """`123`, or `123_4` for an element of an array."""
    state: str
    """PENDING, RUNNING, COMPLETING, …"""
    reason: str
    """Why it is pending."""
    node: str

    @property
    def submission(self) -> str:
        """Id that sbatch gave: that of the array."""
        return self.job_id.partition("_")[0]


@dataclass(frozen=True)
class Grant:
    """What SLURM gave to the job that this process is in."""

    job_id: str
    element: int
    """Position in its array, 0 for the first and for a job that is in none."""
    n_elements: int
    """Jobs of its array; 1 for a job that is in none."""
    restarts: int
    node: str
    address: str | None
    """Address of the node, as other nodes reach it; None: unknown."""
    memory_bytes: int | None
    gpus: tuple[str, ...]

    @property
    def submission(self) -> str:
        """Id that sbatch gave: that of the array."""
        return self.job_id.partition("_")[0]


def read_grant() -> Grant | None:
    """Read what SLURM gave to this job; None outside of one."""
    values = os.environ
    if "SLURM_JOB_ID" not in values:
        return None
    array = values.get("SLURM_ARRAY_JOB_ID")
    element = values.get("SLURM_ARRAY_TASK_ID", "0")
    visible = values.get("CUDA_VISIBLE_DEVICES", "")
    return Grant(
        job_id=f"{array}_{element}" if array else values["SLURM_JOB_ID"],
        element=int(element) - int(values.get("SLURM_ARRAY_TASK_MIN", "0")),
        n_elements=int(values.get("SLURM_ARRAY_TASK_COUNT", "1")),
        restarts=int(values.get("SLURM_RESTART_COUNT", "0")),
        node=values.get("SLURMD_NODENAME", ""),
        address=values.get("SLURM_LAUNCH_NODE_IPADDR"),
        memory_bytes=_granted_memory(),
        gpus=tuple(name for name in visible.split(",") if name not in ("", "-1")),
    )


def _granted_memory() -> int | None:
    values = os.environ
    for name, factor in (
        ("SLURM_MEM_PER_NODE", "1"),
        ("SLURM_MEM_PER_GPU", values.get("SLURM_GPUS_ON_NODE", "1")),
        ("SLURM_MEM_PER_CPU", values.get("SLURM_CPUS_ON_NODE", "1")),
    ):
        # 0 means all of the node, which is no limit that could be shared out.
        if values.get(name, "0") != "0":
            return int(values[name]) * int(factor) * 2**20
    return None


def refuse_several_tasks(what: str) -> None:
    """Refuse to do the work of one process in several.

    Raises
    ------
    RunError
        SLURM started this program more than once, or on several nodes.
    """
    n_tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    n_nodes = int(os.environ.get("SLURM_STEP_NUM_NODES", "1"))
    if n_tasks > 1 or n_nodes > 1:
        raise RunError(
            f"SLURM started {n_tasks} tasks on {n_nodes} nodes, and {what}; use "
            "--nodes=1 --ntasks=1"
        )


def is_available() -> bool:
    """Whether SLURM's commands are there."""
    return shutil.which("squeue") is not None


def run_tool(*command: str, timeout_s: float = _TIMEOUT_S) -> str:
    """Run a command of SLURM and give what it printed.

    Raises
    ------
    RunError
        It is missing, failed or did not answer.
    """
    try:
        answer = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise RunError(
            f"{command[0]} not found; run this where SLURM's commands are (a login "
            "node), or without --cluster"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise RunError(
            f"{command[0]} did not answer within {timeout_s:.0f} s; SLURM may be "
            "overloaded: try again later"
        ) from error
    if answer.returncode != 0:
        words = " ".join((answer.stderr or answer.stdout).split())
        raise RunError(f"{' '.join(command[:2])} failed: {words or 'no message'}")
    return answer.stdout


def read_queue(submissions: Sequence[str]) -> list[QueuedJob]:
    """List those jobs of some submissions that are in the queue, in one question.

    Raises
    ------
    RunError
        SLURM did not answer.
    """
    # Asked for by user: a job that is no longer known would fail the whole question.
    text = run_tool(
        "squeue",
        "--noheader",
        "--array",
        f"--user={getpass.getuser()}",
        "--format=%i|%T|%r|%N",
    )
    jobs = [QueuedJob(*line.strip().split("|")) for line in text.splitlines()]
    return [job for job in jobs if job.submission in submissions]


def is_preempted(job_id: str) -> bool:
    """Whether a job that was told to end is to give way to another, and not cancelled.

    A cancelled job is CANCELLED from the first moment. One that is preempted is
    RUNNING until its grace time is over; and if it ends within that, SLURM takes it
    for done and does not start it again (seen on SLURM 22.05), so that it must ask.
    Where SLURM's commands are missing, as in a container, the answer is yes: of a
    cancelled job the batch script, which then asks, is killed with the rest.
    """
    if not is_available():
        return True
    found = re.search(r"JobState=(\w+)", run_tool("scontrol", "show", "job", job_id))
    return found is not None and found[1] == "RUNNING"


def requeue(job_id: str, *, hold: bool = False) -> None:
    """Have a job start again, or wait until it is released."""
    run_tool("scontrol", "requeuehold" if hold else "requeue", job_id)


def release(job_ids: Sequence[str]) -> None:
    """Let jobs that were held start."""
    for job_id in job_ids:
        run_tool("scontrol", "release", job_id)


def cancel(submissions: Sequence[str], *, pending_only: bool = False) -> None:
    """End jobs, or only those that have not started."""
    options = ["--state=PENDING"] if pending_only else []
    run_tool("scancel", *options, *submissions)


def read_settings() -> dict[str, str]:
    """Read the cluster's configuration, as far as SLURM tells."""
    pairs = re.findall(
        r"^(\w+)[ \t]*=[ \t]*(.*)$", run_tool("scontrol", "show", "config"), re.M
    )
    return {name: value.strip() for name, value in pairs}
