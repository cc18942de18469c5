"""Jobs sent off with submitit: what sbatch reads, and what was sent.

Signals, requeueing and checkpoints are the jobs' own (see `element`), not submitit's:
its handler tells a time limit from a preemption by the clock, and ends the program in
the middle of whatever it does.
"""

import contextlib
import io
import logging
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from nucleiseg.atomic import create_private, read_json, write_json
from nucleiseg.cluster import slurm
from nucleiseg.config import ClusterConfig
from nucleiseg.errors import RunError
from nucleiseg.provenance import timestamp
from nucleiseg.runs import Jobs

logger = logging.getLogger(__name__)

Cluster = Literal["slurm", "local"]
RoleName = Literal["coordinator", "workers", "training", "benchmark"]

# submitit's local executor ends a job after two minutes where it is not told.
_LOCAL_LIMIT_MIN = 60 * 24 * 365

# What sbatch runs after a job's program, which cannot always ask itself to be started
# again: 137, it was killed (out of memory, an operator's kill -9; 128 + 9); 140, it was
# warned before it listened (128 + USR2).
_AFTER = """\
status=$?
case $status in
  {by_program} | 137 | 140)
    if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {max_restarts} ]; then
      scontrol requeue "${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}\
${{SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}}"
    fi ;;
esac
exit "$status\""""


@dataclass(frozen=True)
class Batch:
    """Jobs that are sent off in one go."""

    role: RoleName
    functions: Sequence[Callable[[], None]]
    """One runs in each job; small ones, since they are pickled: paths and names."""
    gpus: int | None = None
    """GPUs of a job."""

    @property
    def n_jobs(self) -> int:
        """Jobs, or elements of an array."""
        return len(self.functions)


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


def submit(
    jobs: Jobs,
    batch: Batch,
    cluster: Cluster,
    settings: ClusterConfig,
    *,
    after: str | None,
) -> list[Submission]:
    """Send jobs off, and write their ids down.

    Parameters
    ----------
    jobs : Jobs
        Paths of the run.
    batch : Batch
    cluster : {"slurm", "local"}
    settings : ClusterConfig
    after : str or None
        Job that must have started before these may.

    Returns
    -------
    list of Submission
        One for all jobs of an array, locally one each.

    Raises
    ------
    RunError
        sbatch refused.
    """
    create_private(jobs.logs)
    if cluster == "local":
        return [
            _record(jobs, batch.role, cluster, _start_here(jobs, batch, settings, n), 1)
            for n in range(batch.n_jobs)
        ]
    job_id = _send(jobs, batch, settings, after=after)
    return [_record(jobs, batch.role, cluster, job_id, batch.n_jobs)]


def record_submission(jobs: Jobs, role: RoleName, job_id: str) -> Submission:
    """Write down a job that was submitted by hand."""
    n_jobs = int(os.environ.get("SLURM_ARRAY_TASK_COUNT", "1"))
    return _record(jobs, role, "slurm", job_id, n_jobs)


def _record(
    jobs: Jobs, role: RoleName, cluster: Cluster, job_id: str, n_jobs: int
) -> Submission:
    submission = Submission(
        role, cluster, job_id, n_jobs, socket.gethostname(), timestamp()
    )
    found = [asdict(entry) for entry in read_submissions(jobs)]
    write_json(jobs.submissions, [*found, asdict(submission)])
    return submission


def _send(
    jobs: Jobs, batch: Batch, settings: ClusterConfig, *, after: str | None
) -> str:
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    # submitit prints what sbatch says, which is in our message.
    with _clean_environment(), contextlib.redirect_stderr(io.StringIO()):
        executor = _make_executor(jobs, batch, settings, after=after)
        try:
            if batch.n_jobs == 1:
                sent = [executor.submit(batch.functions[0])]
            else:
                with executor.batch():
                    sent = [executor.submit(function) for function in batch.functions]
        except FailedSubmissionError as error:
            raise RunError(
                f"sbatch gave no job id for the {batch.role} ("
                f"{str(error).splitlines()[0]}); look for them with squeue, end them "
                "with scancel, and try again"
            ) from error
        except (FailedJobError, OSError, subprocess.SubprocessError) as error:
            raise RunError(
                f"sbatch refused the {batch.role} ({_explain_refusal(error)}); mend "
                "the cluster section of the configuration or the site profile, and "
                "see what --dry-run prints"
            ) from error
    return str(sent[0].job_id).partition("_")[0]


def make_sbatch_text(
    jobs: Jobs, batch: Batch, settings: ClusterConfig, *, after: str | None
) -> str:
    """Make the text that sbatch would get."""
    from submitit.slurm.slurm import _make_sbatch_string

    parameters = _parameters(batch, settings, after=after)
    if batch.n_jobs > 1:
        parameters["map_count"] = batch.n_jobs
    python = settings.python or shlex.quote(sys.executable)
    command = f"{python} -u -m submitit.core._submit {shlex.quote(str(jobs.logs))}"
    return str(_make_sbatch_string(command=command, folder=jobs.logs, **parameters))


def _make_executor(
    jobs: Jobs, batch: Batch, settings: ClusterConfig, *, after: str | None
) -> Any:
    from submitit import SlurmExecutor

    try:
        executor = SlurmExecutor(folder=jobs.logs, python=settings.python)
    except RuntimeError as error:
        raise RunError(
            "srun not found: this is no machine of a SLURM cluster; run this on a "
            "login node, or use --cluster local"
        ) from error
    executor.update_parameters(**_parameters(batch, settings, after=after))
    return executor


def _parameters(
    batch: Batch, settings: ClusterConfig, *, after: str | None
) -> dict[str, Any]:
    """Give what is set as submitit's parameters, and nothing that is not."""
    is_coordinator = batch.role == "coordinator"
    if is_coordinator:
        wanted: dict[str, Any] = {
            "partition": settings.coordinator_partition,
            "time": settings.coordinator_walltime_min,
            "cpus_per_task": settings.coordinator_cpus,
        }
        extra = settings.coordinator_sbatch
        cpus = settings.coordinator_cpus
        memory_gb = settings.coordinator_memory_gb
    else:
        wanted = {
            "partition": settings.partition,
            "time": settings.walltime_min,
            "cpus_per_task": settings.cpus,
            "qos": settings.qos,
            "constraint": settings.constraint,
            "gres": settings.gres,
            "gpus_per_node": None if settings.gres else batch.gpus,
        }
        extra = settings.sbatch
        cpus = settings.cpus
        memory_gb = settings.memory_gb
    return {
        # submitit would send five minutes, and a key of its own for accounting.
        "time": None,
        "wckey": None,
        **{name: value for name, value in wanted.items() if value is not None},
        "job_name": f"nucleiseg-{batch.role}",
        "account": settings.account,
        "dependency": None if after is None else f"after:{after}",
        "array_parallelism": settings.throttle or batch.n_jobs,
        "signal_delay_s": settings.signal_delay_s,
        "stderr_to_stdout": True,
        "additional_parameters": {
            "requeue": True,
            **({} if memory_gb is None else {"mem": f"{round(memory_gb * 1024)}M"}),
            **_flags(extra),
        },
        # Since 22.05 srun does not take it over from sbatch.
        "srun_args": [f"--cpus-per-task={cpus}"] if cpus else [],
        "setup": settings.setup or None,
        "teardown": _AFTER.format(
            by_program=slurm.REQUEUE_STATUS, max_restarts=settings.max_restarts
        ).split("\n"),
    }


def _flags(extra: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
    return {
        name.lstrip("-").replace("_", "-"): value
        for name, value in extra.items()
        if value is not False
    }


def _explain_refusal(error: BaseException) -> str:
    text = error.stderr if isinstance(error, subprocess.CalledProcessError) else None
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    lines = (text or str(error)).strip().splitlines()
    told = [line for line in lines if "error" in line.lower()] or lines[-1:]
    return " ".join(" ".join(told).split())


@contextlib.contextmanager
def _clean_environment() -> Iterator[None]:
    """Hide the job that this command may itself run in; keep the way to SLURM."""
    from submitit.helpers import clean_env

    kept = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with clean_env():
        os.environ.update(kept)
        try:
            yield
        finally:
            for name in kept:
                os.environ.pop(name, None)


def _start_here(jobs: Jobs, batch: Batch, settings: ClusterConfig, number: int) -> str:
    """Start a job on this machine; it outlives this command."""
    from submitit import LocalExecutor

    executor = LocalExecutor(folder=jobs.logs, python=settings.python)
    parameters: dict[str, Any] = {
        "timeout_min": settings.walltime_min or _LOCAL_LIMIT_MIN,
        "signal_delay_s": settings.signal_delay_s,
        "stderr_to_stdout": True,
        # Neither a terminal that is closed nor Ctrl-C in it may reach the job.
        "setup": ["trap '' HUP INT", *settings.setup],
    }
    if batch.gpus:
        first = number * batch.gpus
        parameters["visible_gpus"] = list(range(first, first + batch.gpus))
        parameters["gpus_per_node"] = batch.gpus
    executor.update_parameters(**parameters)
    return str(executor.submit(batch.functions[number]).job_id)


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
