"""Ending the jobs of a run, so that it can be gone on with anywhere."""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nucleiseg.atomic import write_text
from nucleiseg.cluster import (
    Submission,
    list_queued,
    read_submissions,
    remove_keys,
    slurm,
)
from nucleiseg.errors import RunError
from nucleiseg.provenance import timestamp
from nucleiseg.runs import CountRun, Jobs

logger = logging.getLogger(__name__)

_POLL_S = 1.0
_LIMIT_S = 60.0


@dataclass(frozen=True)
class Cancelled:
    """What `cancel` did."""

    ended: list[str]
    """Jobs that were there and are gone."""
    remaining: list[str]
    """Jobs that have not ended within a minute."""


def refuse_while_active(jobs: Jobs) -> None:
    """Refuse to start a run whose jobs are still in the queue or running.

    Raises
    ------
    RunError
        They are named.
    """
    submissions = read_submissions(jobs)
    if not submissions:
        return
    try:
        queued = list_queued(submissions)
    except RunError as error:
        logger.warning(
            "whether jobs of this run are still running is unknown: %s", error
        )
        return
    if queued:
        raise RunError(
            f"{jobs.root} is being worked on by {_name(queued)}; see nucleiseg status "
            f"{jobs.root}, or end them with nucleiseg cancel {jobs.root}"
        )


def cancel(root: Path) -> Cancelled:
    """End all jobs of a run; what is done is kept.

    Raises
    ------
    RunError
        Nothing was ever submitted for this directory, or SLURM does not answer.
    """
    jobs = Jobs(root)
    submissions = read_submissions(jobs)
    if not submissions:
        raise RunError(f"{root} has no jobs: nothing was submitted for it")
    # Read by every job about once a second: it ends without finishing its shard, and
    # one that is started again by SLURM ends at once.
    write_text(jobs.cancelled, timestamp() + "\n")
    before = list_queued(submissions)
    _end(submissions, before)
    deadline_s = time.monotonic() + _LIMIT_S
    left = before
    while left and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
        left = list_queued(submissions)
    remaining = {job.job_id for job in left}
    if not remaining:
        # Of a coordinator that had no time to take them away.
        remove_keys(CountRun(root))
    ended = [job.job_id for job in before if job.job_id not in remaining]
    return Cancelled(ended, sorted(remaining))


def _end(submissions: Sequence[Submission], queued: Sequence[slurm.QueuedJob]) -> None:
    there = {job.submission for job in queued}
    ids = [s.job_id for s in submissions if s.cluster == "slurm" and s.job_id in there]
    if ids:
        slurm.cancel(ids)
    for submission in submissions:
        if submission.cluster == "local" and submission.job_id in there:
            for pid in _controllers(int(submission.job_id)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)


def _controllers(shell: int) -> list[int]:
    """Find what submitit's shell started; it passes no signal on itself."""
    children = Path(f"/proc/{shell}/task/{shell}/children")
    try:
        return [int(pid) for pid in children.read_text(encoding="ascii").split()]
    except FileNotFoundError:
        return []


def _name(queued: Sequence[slurm.QueuedJob]) -> str:
    names = [f"job {job.job_id} ({job.state.lower()})" for job in queued[:3]]
    more = len(queued) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
