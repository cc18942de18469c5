"""Jobs sent off with submitit, to SLURM or on this machine.

Signals, requeueing and checkpoints are the jobs' own (see `element`), not submitit's:
its handler tells a time limit from a preemption by the clock, and ends the program in
the middle of whatever it does.
"""

import contextlib
import io
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from nucleiseg.atomic import create_private
from nucleiseg.cluster.sbatch import Batch, give_parameters
from nucleiseg.cluster.sent import Cluster, Submission, record
from nucleiseg.config import ClusterConfig
from nucleiseg.errors import RunError
from nucleiseg.runs import Jobs

# submitit's local executor ends a job after two minutes where it is not told.
_LOCAL_LIMIT_MIN = 60 * 24 * 365


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
            record(jobs, batch.role, cluster, _start_here(jobs, batch, settings, n), 1)
            for n in range(batch.n_jobs)
        ]
    job_id = _send(jobs, batch, settings, after=after)
    return [record(jobs, batch.role, cluster, job_id, batch.n_jobs)]


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
    executor.update_parameters(**give_parameters(batch, settings, after=after))
    return executor


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
