"""What a site's cluster is asked for."""

from typing import Literal

from pydantic import Field, model_validator

from nucleiseg.config.section import Section

# What submitit, or another setting, writes into the sbatch text.
_TAKEN_FLAGS = {
    "partition": "cluster.partition or cluster.coordinator_partition",
    "account": "cluster.account",
    "array": "cluster.workers and cluster.throttle",
    "time": "cluster.walltime_min",
    "signal": "cluster.signal_delay_s",
    "gpus-per-node": "cluster.gpus",
    "cpus-per-task": "cluster.cpus",
    "mem": "cluster.memory_gb",
    "nodes": "nothing: a job uses one node",
    "ntasks": "nothing: a job is one task",
    "ntasks-per-node": "nothing: a job is one task",
    "output": "nothing: logs go to the run directory",
    "error": "nothing: logs go to the run directory",
    "open-mode": "nothing: logs are appended to",
    "dependency": "nothing: workers wait for their coordinator",
    "requeue": "nothing: jobs are requeued up to cluster.max_restarts",
    "chdir": "nothing: jobs start in the folder they are submitted from",
}


# The coordinator's job has no settings of its own for these.
_TAKEN_BY_WORKERS = {
    "qos": "cluster.qos",
    "constraint": "cluster.constraint",
    "gres": "cluster.gres",
    "gpus": "cluster.gpus",
}


class ClusterConfig(Section):
    """What to ask a cluster for; a key that is null is not sent."""

    partition: str | None = None
    """Partition of the GPU jobs; null: the site's default."""
    account: str | None = None
    """Account of all jobs."""
    qos: str | None = None
    """Quality of service of the GPU jobs."""
    constraint: str | None = None
    """Features the GPU nodes must have."""
    walltime_min: int | None = Field(default=None, ge=1)
    """Time limit of the GPU jobs; they are requeued when it ends."""
    gpus: int | None = Field(default=1, ge=1)
    """GPUs of a job (`--gpus-per-node`). When counting, a job starts one worker for
    each, or `workers_per_gpu`; when training, they are the replicas."""
    gres: str | None = None
    """Sent as `--gres` in place of `gpus`, for sites that want `gpu:a100:1`; `gpus`
    then only says how many there are."""
    cpus: int | None = Field(default=None, ge=1)
    """CPU cores of a GPU job."""
    memory_gb: float | None = Field(default=None, ge=0.1)
    """Memory of a GPU job."""
    workers: int = Field(default=4, ge=1)
    """Workers to count with, one GPU each, in `workers / gpus` jobs."""
    workers_per_gpu: int = Field(default=1, ge=1, le=16)
    """So many in place of each worker on a GPU; here, too, where `--workers` is not
    given. Python limits what one can label, whatever its cores, and a small network on
    a fast GPU does more (`python -m jobs.benchmark ceiling` measures the limit;
    `nucleiseg status` says whether labelling is the bottleneck). They share the job's
    memory, its cores (two each, or more) and the GPU's memory, which each takes what a
    worker alone would take."""
    throttle: int | None = Field(default=None, ge=1)
    """Most GPU jobs that may run at once."""
    coordinator: Literal["job", "worker"] = "job"
    """Where the coordinator of a count runs: in a CPU job of its own, or beside the
    first GPU job's workers, for sites without a CPU partition."""
    coordinator_partition: str | None = None
    """Partition of the coordinator's job; null: the site's default."""
    coordinator_walltime_min: int | None = Field(default=None, ge=1)
    """Time limit of the coordinator's job; it is requeued when it ends."""
    coordinator_cpus: int | None = Field(default=None, ge=1)
    """CPU cores of the coordinator's job; one is enough."""
    coordinator_memory_gb: float | None = Field(default=None, ge=0.1)
    """Memory of the coordinator's job; 2 are enough."""
    sbatch: dict[str, str | int | bool] = Field(default={})
    """More sbatch options of the GPU jobs: `{exclude: node7, exclusive: true}`."""
    coordinator_sbatch: dict[str, str | int | bool] = Field(default={})
    """More sbatch options of the coordinator's job: `{reservation: night}`."""
    setup: list[str] = Field(default=[])
    """Shell lines before anything else in each job: `module load cuda`."""
    python: str | None = None
    """Shell words that start Python on the nodes, where it is not the one that
    submits: `apptainer exec --nv nucleiseg.sif python`."""
    interface: str | None = None
    """Network interface of scheduler and workers, as `ib0`; null: the node's own
    address, as SLURM knows it."""
    signal_delay_s: int = Field(default=300, ge=5, le=540)
    """Warning before the time limit: longer than the slowest shard takes, or a step of
    training and a checkpoint."""
    idle_min: float = Field(default=10, gt=0)
    """A worker that has waited so long for a coordinator leaves, and frees its GPU."""
    max_restarts: int = Field(default=100, ge=0)
    """Most times that a job is requeued."""

    def share_gpus(self, n_gpus: int) -> int:
        """Count the workers of a job that counts; 1 where it has no GPU."""
        return max(1, n_gpus * self.workers_per_gpu)

    @property
    def n_workers(self) -> int:
        """Workers of a count, over all jobs."""
        return self.workers * self.share_gpus(1 if self.gpus else 0)

    @model_validator(mode="after")
    def _consistent(self) -> "ClusterConfig":
        for name, flags in (
            ("sbatch", _TAKEN_FLAGS | _TAKEN_BY_WORKERS),
            ("coordinator_sbatch", _TAKEN_FLAGS),
        ):
            for flag in getattr(self, name):
                taken = flags.get(flag.replace("_", "-").lstrip("-"))
                if taken is not None:
                    raise ValueError(f"{name} may not hold {flag}; use {taken}")
        for limit_min in (self.walltime_min, self.coordinator_walltime_min):
            if limit_min is not None and 60 * limit_min <= self.signal_delay_s:
                raise ValueError(
                    f"signal_delay_s {self.signal_delay_s} is a warning of more than "
                    f"the whole time limit of {limit_min} min; lower it"
                )
        for line in self.setup:
            if "\n" in line:
                raise ValueError(f"setup holds a line break in {line!r}; use two lines")
        return self
