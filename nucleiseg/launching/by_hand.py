"""Runs whose jobs a batch script starts: the script is the submission."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from nucleiseg.atomic import create_private
from nucleiseg.cluster import (
    CountJob,
    TrainJob,
    read_run_state,
    read_submissions,
    record_submission,
    slurm,
)
from nucleiseg.config import Config
from nucleiseg.counting import Journal, claim, prepare
from nucleiseg.errors import RunError
from nucleiseg.launching.cancelling import refuse_while_active
from nucleiseg.launching.submitting import for_cluster
from nucleiseg.runs import CountRun, TrainRun
from nucleiseg.training import prepare_run

logger = logging.getLogger(__name__)

# How long the other elements of an array wait for the first to plan.
_PLAN_LIMIT_S = 3600.0
_POLL_S = 2.0


def count_by_hand(
    inputs: Sequence[str],
    model: str | Path | None,
    config: Config,
    folder: Path,
    *,
    labels: bool = False,
) -> NoReturn:
    """Do the part of this job, an element of an array, in a count.

    The first element plans and coordinates, and every element works. The process ends
    with the job's exit status. With `labels`, label images are made, too.

    Raises
    ------
    NucleisegError
        Something does not fit.
    """
    grant = slurm.read_grant()
    if grant is None:
        raise RunError("count_by_hand needs a job of SLURM; use count")
    slurm.refuse_several_tasks(slurm.COUNT_IS_ONE_PROCESS)
    run = CountRun(folder.absolute())
    n_workers = config.cluster.share_gpus(len(grant.gpus))
    if grant.element == 0:
        prepared = prepare(
            inputs,
            model,
            for_cluster(config),
            folder=run.root,
            workers=grant.n_elements * n_workers,
            labels=labels,
        )
        create_private(run.root)
        if not _is_submitted(run, grant):
            refuse_while_active(run.jobs)
            claim(run, prepared.plan, prepared.config, prepared.model)
            Journal(run).write("submitted")
            record_submission(run.jobs, "workers", grant.submission)
    else:
        _wait_for_plan(run, grant)
    CountJob(str(run.root), "first", n_workers)()


def _is_submitted(run: CountRun, grant: slurm.Grant) -> bool:
    """Whether this job has begun the run before: it was requeued."""
    return run.plan.exists() and any(
        entry.job_id == grant.submission for entry in read_submissions(run.jobs)
    )


def _wait_for_plan(run: CountRun, grant: slurm.Grant) -> None:
    deadline_s = time.monotonic() + _PLAN_LIMIT_S
    while not _is_submitted(run, grant) or read_run_state(run.jobs) is None:
        if time.monotonic() > deadline_s:
            raise RunError(
                f"the first job of array {grant.submission} has not planned {run.root} "
                f"within {_PLAN_LIMIT_S / 60:.0f} min; see its log"
            )
        time.sleep(_POLL_S)


def train_by_hand(config: Config, folder: Path) -> NoReturn:
    """Train in this job, and go on when it is requeued.

    The process ends with the job's exit status.

    Raises
    ------
    NucleisegError
        Something does not fit.
    """
    grant = slurm.read_grant()
    if grant is None:
        raise RunError("train_by_hand needs a job of SLURM; use train")
    # Before several of them write into the run directory.
    slurm.refuse_several_tasks(slurm.TRAINING_IS_ONE_PROCESS)
    jobs = TrainRun(folder.absolute()).jobs
    is_new = all(s.job_id != grant.submission for s in read_submissions(jobs))
    if is_new:
        refuse_while_active(jobs)
    run = prepare_run(for_cluster(config), folder.absolute())
    create_private(run.jobs.logs)
    if is_new:
        run.jobs.cancelled.unlink(missing_ok=True)
        record_submission(run.jobs, "training", grant.submission)
    TrainJob(str(run.root))()
