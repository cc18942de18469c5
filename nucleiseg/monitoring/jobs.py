"""The jobs of a run: what SLURM says of them, and what they say of themselves."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nucleiseg.cluster import (
    Record,
    Submission,
    list_queued,
    read_records,
    read_submissions,
)
from nucleiseg.cluster.slurm import QueuedJob
from nucleiseg.errors import RunError
from nucleiseg.runs import Jobs


@dataclass(frozen=True)
class JobsStatus:
    """The jobs of a run."""

    submitted: list[str]
    """Ids, as sbatch gave them."""
    states: dict[str, dict[str, int]]
    """Role -> state -> number of jobs. States of a job that runs are its own words;
    `pending` and `held` are SLURM's; `lost`: it was killed, and SLURM knows no more
    of it."""
    restarts: int
    """Times that jobs of this run were started again by SLURM."""
    deaths: int
    """Worker or training processes that died under jobs that survived them."""
    last_error: str | None
    """What the jobs complained of last, with its time."""
    devices: list[str]
    """What the jobs that run now compute on."""
    queue_error: str | None
    """Why SLURM could not be asked; states are then the jobs' own last words."""

    @property
    def n_active(self) -> int:
        """Jobs that run or will."""
        over = ("left", "ended", "failed", "lost")
        return sum(
            number
            for states in self.states.values()
            for state, number in states.items()
            if state not in over
        )


def read_jobs_status(jobs: Jobs, *, now_s: float) -> JobsStatus:
    """Read the records of all jobs, and ask SLURM once which of them it knows."""
    submissions = read_submissions(jobs)
    records = read_records(jobs)
    queue_error = None
    queued: list[QueuedJob] | None
    try:
        queued = list_queued(submissions)
    except RunError as error:
        queued, queue_error = None, str(error)
    latest = [record for record in records if record.error]
    latest.sort(key=lambda record: record.updated_s)
    return JobsStatus(
        submitted=[submission.job_id for submission in submissions],
        states=_count_states(submissions, records, queued, now_s),
        restarts=sum(record.restarts for record in records),
        deaths=sum(record.deaths for record in records),
        last_error=(
            f"{latest[-1].error} (job {latest[-1].name}, {latest[-1].updated})"
            if latest
            else None
        ),
        devices=[
            f"{record.node or record.host}: {device}"
            for record in records
            for device in record.devices
            if not record.is_over and not record.is_stale(now_s)
        ],
        queue_error=queue_error,
    )


def _count_states(
    submissions: Sequence[Submission],
    records: Sequence[Record],
    queued: Sequence[QueuedJob] | None,
    now_s: float,
) -> dict[str, dict[str, int]]:
    """Count the jobs of each role by state."""
    by_name = {record.name: record for record in records}
    in_queue = {job.job_id: job for job in queued or ()}
    counts: dict[str, Counter[str]] = {}
    for submission in submissions:
        names = {
            name
            for name in [*by_name, *in_queue]
            if name.partition("_")[0] == submission.job_id
        }
        counter = counts.setdefault(submission.role, Counter())
        for name in sorted(names):
            job = in_queue.get(name)
            counter[_state(by_name.get(name), job, queued is not None, now_s)] += 1
        n_silent = submission.n_jobs - len(names)
        if n_silent > 0:
            # Neither in the queue nor ever heard of: taken out before they began.
            counter["ended" if queued is not None else "pending"] += n_silent
    return {role: dict(sorted(counter.items())) for role, counter in counts.items()}


def _state(
    record: Record | None, job: QueuedJob | None, is_known: bool, now_s: float
) -> str:
    if job is not None and job.state == "PENDING":
        return "held" if "held" in job.reason.lower() else "pending"
    if job is not None:
        if record is None or record.is_over:
            return "ending" if job.state == "COMPLETING" else "starting"
        return record.state
    if record is None:
        return "pending"
    if record.is_over and record.state not in ("requeued", "held"):
        return record.state
    # Not in the queue any more, or unknown whether it is.
    return "lost" if is_known or record.is_stale(now_s) else record.state
