"""The coordinator of a count on a cluster: workers of other jobs come to it."""

import logging
import signal
import time
from pathlib import Path

from nucleiseg.atomic import remove_temporaries
from nucleiseg.cluster import (
    Record,
    gather,
    is_cancelled,
    list_queued,
    read_records,
    read_submissions,
    slurm,
)
from nucleiseg.counting.journal import Journal
from nucleiseg.counting.pictures import choose_pictures
from nucleiseg.counting.preparing import reopen
from nucleiseg.counting.run import CountResult, compute, draw, finish
from nucleiseg.errors import (
    IncompleteError,
    NucleisegError,
    RunError,
    StoppedError,
    SupersededError,
)
from nucleiseg.runs import CountRun
from nucleiseg.tables import find_missing

logger = logging.getLogger(__name__)

# SLURM is asked for the workers only when none has been there for this long, and
# then no more often.
_ASK_AFTER_S = 60.0


def coordinate(root: Path) -> CountResult:
    """Lead a planned run to its table with the workers that join.

    Parameters
    ----------
    root : Path
        Directory of a run that was planned.

    Raises
    ------
    StoppedError
        Asked to (SIGUSR1, or `cancel`); what is done is kept.
    IncompleteError
        Some shards could not be computed, or no worker is left to compute them.
    NucleisegError
        It cannot start.
    """
    run = CountRun(root)
    journal = Journal(run)
    try:
        return _coordinate(run, journal)
    except SupersededError:
        raise  # the run's state is not its business any more
    except StoppedError:
        journal.write("stopped")
        raise
    except IncompleteError as error:
        journal.write("incomplete", error=str(error))
        raise
    except NucleisegError as error:
        journal.write("failed", error=str(error))
        raise


def _coordinate(run: CountRun, journal: Journal) -> CountResult:
    prepared = reopen(run)
    plan, settings = prepared.plan, prepared.config.cluster
    for folder in (run.root, run.parts, run.index, run.scales):
        remove_temporaries(folder)
    missing = find_missing(run, plan)
    picks = choose_pictures(plan, prepared.config.table.pictures)
    watch = _Watch(run, journal)
    n_pictures = 0
    if missing or picks:
        _release_held(run)
        with gather(
            run.root,
            plan.identity,
            interface=settings.interface,
            is_local=slurm.read_grant() is None,
            watch=watch,
        ) as team:
            if missing:
                compute(run, plan, missing, team, journal)
            if team.was_superseded:
                raise SupersededError("another coordinator has taken over")
            if team.was_stopped:
                if watch.reason is not None:
                    raise IncompleteError(watch.reason)
                raise StoppedError("stopped; what is done is kept")
            n_pictures = draw(team, picks)
    merged = finish(run, prepared, journal).merged
    _dismiss_pending(run)
    return CountResult(merged, len(missing), n_pictures)


class _Watch:
    """Decides, about once a second, whether the run goes on."""

    def __init__(self, run: CountRun, journal: Journal) -> None:
        self._run = run
        self._journal = journal
        self._is_asked_to_stop = False
        self._asked_s = time.monotonic()
        self.reason: str | None = None
        """Why the run cannot go on; None: it was asked to stop."""
        signal.signal(signal.SIGUSR1, self._stop)
        # Its leader decides what these mean; some sites send them to all processes.
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _stop(self, signal_number: int, frame: object) -> None:
        self._is_asked_to_stop = True

    def __call__(self, n_workers: int) -> bool:
        self._journal.tick(n_workers)
        if self._is_asked_to_stop or is_cancelled(self._run.jobs):
            logger.info("stopping: what is being computed is finished")
            return False
        now_s = time.monotonic()
        if n_workers:
            self._asked_s = now_s
        elif now_s - self._asked_s > _ASK_AFTER_S:
            self._asked_s = now_s
            self.reason = _explain_absence(self._run)
        return self.reason is None


def _explain_absence(run: CountRun) -> str | None:
    """Say why no worker will come any more; None while some may."""
    records = read_records(run.jobs)
    if _may_come(run, records):
        return None
    errors = [record.error for record in records if record.error]
    return (
        "no workers are left, and shards are missing"
        + (f" (the last error: {errors[-1]})" if errors else "")
        + "; mend that, then run the same command again: what is done is kept"
    )


def _may_come(run: CountRun, records: list[Record]) -> bool:
    """Whether a job is left, waiting or running, that may bring workers."""
    sent = [entry for entry in read_submissions(run.jobs) if entry.role == "workers"]
    # Such as the job of this process, when its own workers were given up.
    without = {record.name for record in records if record.role == "coordinator"}
    if slurm.is_available() or all(entry.cluster == "local" for entry in sent):
        try:
            return any(job.job_id not in without for job in list_queued(sent))
        except RunError as error:
            logger.warning("SLURM was asked for the workers: %s", error)
            return True
    # In a container. One that only ended may have been preempted, and comes back.
    without |= {record.name for record in records if record.state in ("failed", "left")}
    newest = sent[-1]
    n_gone = sum(name.partition("_")[0] == newest.job_id for name in without)
    return n_gone < newest.n_jobs


def _release_held(run: CountRun) -> None:
    """Let workers start that went to sleep because no coordinator was there."""
    try:
        held = [
            job.job_id
            for job in list_queued(read_submissions(run.jobs))
            if job.state == "PENDING" and "held" in job.reason.lower()
        ]
        slurm.release(held)
    except RunError as error:
        logger.warning("held workers were not released: %s", error)


def _dismiss_pending(run: CountRun) -> None:
    """Take workers that have not started out of the queue: all is done."""
    ids = [
        entry.job_id
        for entry in read_submissions(run.jobs)
        if entry.cluster == "slurm" and entry.role == "workers"
    ]
    if not ids:
        return
    try:
        slurm.cancel(ids, pending_only=True)
    except RunError as error:
        logger.warning("pending workers were not cancelled: %s", error)
