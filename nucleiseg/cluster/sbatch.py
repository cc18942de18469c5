"""What sbatch reads: jobs, their resources, and what is run after them."""

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nucleiseg.cluster import slurm
from nucleiseg.cluster.sent import RoleName
from nucleiseg.config import ClusterConfig
from nucleiseg.runs import Jobs

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


def make_sbatch_text(
    jobs: Jobs, batch: Batch, settings: ClusterConfig, *, after: str | None
) -> str:
    """Make the text that sbatch would get."""
    from submitit.slurm.slurm import _make_sbatch_string

    parameters = give_parameters(batch, settings, after=after)
    if batch.n_jobs > 1:
        parameters["map_count"] = batch.n_jobs
    python = settings.python or shlex.quote(sys.executable)
    command = f"{python} -u -m submitit.core._submit {shlex.quote(str(jobs.logs))}"
    return str(_make_sbatch_string(command=command, folder=jobs.logs, **parameters))


def give_parameters(
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
