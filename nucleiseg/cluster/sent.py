"""Jobs that were sent off for a run: written down, and which are still there."""

import os
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from nucleiseg.atomic import read_json, write_json
from nucleiseg.cluster import slurm
from nucleiseg.provenance import timestamp
from nucleiseg.runs import Jobs

Cluster = Literal["slurm", "local"]
RoleName = Literal["coordinator", "workers", "training", "benchmark"]


@dataclass(frozen=True)
class Submission:
    """Jobs that were sent off."""

    role: RoleName
    cluster: Cluster
    job_id: str
    """As sbatch gave it; local: the process that leads the job."""
    n_jobs: int
    host: str
    submitted: str


def record(
    jobs: Jobs, role: RoleName, cluster: Cluster, job_id: str, n_jobs: int
) -> Submission:
    """Write down jobs that were just sent off."""
    submission = Submission(
        role, cluster, job_id, n_jobs, socket.gethostname(), timestamp()
    )
    found = [asdict(entry) for entry in read_submissions(jobs)]
    write_json(jobs.submissions, [*found, asdict(submission)])
    return submission


def record_submission(jobs: Jobs, role: RoleName, job_id: str) -> Submission:
    """Write down a job that was submitted by hand."""
    n_jobs = int(os.environ.get("SLURM_ARRAY_TASK_COUNT", "1"))
    return record(jobs, role, "slurm", job_id, n_jobs)


def read_submissions(jobs: Jobs) -> list[Submission]:
    """Read what was sent off for a run, oldest first."""
    if not jobs.submissions.exists():
        return []
    return [Submission(**entry) for entry in read_json(jobs.submissions)]


def is_alive(submission: Submission) -> bool:
    """Whether a job that was started on this machine is still there."""
    if submission.host != socket.gethostname():
        return False
    try:
        command = Path(f"/proc/{submission.job_id}/cmdline").read_bytes()
    except FileNotFoundError:
        return False
    # Numbers of processes are used again.
    return b"submitit" in command


def list_queued(submissions: Sequence[Submission]) -> list[slurm.QueuedJob]:
    """List the jobs of a run that are in the queue or alive, with one question."""
    found = [
        slurm.QueuedJob(entry.job_id, "RUNNING", "", entry.host)
        for entry in submissions
        if entry.cluster == "local" and is_alive(entry)
    ]
    ids = [entry.job_id for entry in submissions if entry.cluster == "slurm"]
    return found + (slurm.read_queue(ids) if ids else [])
