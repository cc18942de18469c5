"""Sending a run to a cluster: plan, submit, write the ids down, and that is all."""

import logging
from dataclasses import dataclass
from pathlib import Path

from nucleiseg.atomic import create_private
from nucleiseg.cluster import (
    Batch,
    Cluster,
    CountJob,
    Submission,
    TrainJob,
    make_sbatch_text,
    slurm,
    submit,
)
from nucleiseg.config import ClusterConfig, Config
from nucleiseg.counting import Journal, Prepared, claim, refuse_others
from nucleiseg.errors import RunError
from nucleiseg.launching.cancelling import refuse_while_active
from nucleiseg.runs import CountRun, Jobs, TrainRun
from nucleiseg.tables import find_missing
from nucleiseg.training import prepare_run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Submitted:
    """What was sent off."""

    root: Path
    submissions: list[Submission]


def for_cluster(config: Config) -> Config:
    """Complete a configuration for a cluster: a GPU is wanted unless `cpu` is set."""
    changes = {
        section: getattr(config, section).model_copy(update={"device": "gpu"})
        for section in ("inference", "training")
        if "device" not in config.explicit(section)
    }
    return config.model_copy(update=changes)


def submit_count(prepared: Prepared, folder: Path, cluster: Cluster) -> Submitted:
    """Plan a count in its run directory and submit its jobs.

    Raises
    ------
    RunError
        The directory holds another run, or one that is running; or SLURM refused.
    """
    run = CountRun(folder.absolute())
    settings = prepared.config.cluster
    _refuse_unwritable_names(run.root)
    refuse_others(run, prepared.plan)
    refuse_while_active(run.jobs)
    claim(run, prepared.plan, prepared.config, prepared.model)
    n_missing = len(find_missing(run, prepared.plan))
    Journal(run).write("submitted")
    sent: list[Submission] = []
    try:
        for batch in _count_batches(run, settings, n_missing):
            after = sent[0].job_id if sent else None
            sent += submit(run.jobs, batch, cluster, settings, after=after)
    except RunError:
        # Half a run would wait for its other half for ever.
        if sent and cluster == "slurm":
            slurm.cancel([submission.job_id for submission in sent])
        raise
    return Submitted(run.root, sent)


def submit_training(config: Config, folder: Path, cluster: Cluster) -> Submitted:
    """Make a training's run directory and submit its job.

    Raises
    ------
    RunError
        The directory holds another training, or one that is running; or SLURM
        refused.
    """
    root = folder.absolute()
    _refuse_unwritable_names(root)
    refuse_while_active(TrainRun(root).jobs)
    run = prepare_run(config, root)
    create_private(run.jobs.logs)
    run.jobs.cancelled.unlink(missing_ok=True)
    batch = _training_batch(run, config.cluster)
    return Submitted(root, submit(run.jobs, batch, cluster, config.cluster, after=None))


def preview_count(prepared: Prepared, folder: Path | None) -> list[str]:
    """Make the texts that sbatch would get for a count."""
    run = CountRun((folder or Path("RUN")).absolute())
    settings = prepared.config.cluster
    batches = _count_batches(run, settings, len(prepared.plan.shards))
    return _texts(run.jobs, batches, settings)


def preview_training(config: Config, folder: Path | None) -> list[str]:
    """Make the text that sbatch would get for a training."""
    run = TrainRun((folder or Path("RUN")).absolute())
    return _texts(run.jobs, [_training_batch(run, config.cluster)], config.cluster)


def _texts(jobs: Jobs, batches: list[Batch], settings: ClusterConfig) -> list[str]:
    _refuse_unwritable_names(jobs.root)
    return [
        make_sbatch_text(
            jobs, batch, settings, after=f"{batches[0].role.upper()}" if index else None
        )
        for index, batch in enumerate(batches)
    ]


def _count_batches(
    run: CountRun, settings: ClusterConfig, n_shards: int
) -> list[Batch]:
    gpus_per_job = settings.gpus or 1
    # A worker without a shard would only load the network and leave.
    n_gpus = max(1, min(settings.workers, n_shards))
    n_jobs = -(-n_gpus // gpus_per_job)
    per_job = min(
        settings.share_gpus(settings.gpus or 0), max(1, -(-n_shards // n_jobs))
    )
    if n_jobs * per_job < settings.n_workers:
        logger.info("shards to compute: %d; workers: %d", n_shards, n_jobs * per_job)
    is_first = settings.coordinator == "worker"
    root = str(run.root)
    workers = Batch(
        "workers",
        [
            CountJob(root, "yes" if is_first and not number else "no", per_job)
            for number in range(n_jobs)
        ],
        gpus=settings.gpus,
    )
    if is_first:
        return [workers]
    return [Batch("coordinator", [CountJob(root, "yes", 0)]), workers]


def _training_batch(run: TrainRun, settings: ClusterConfig) -> Batch:
    return Batch("training", [TrainJob(str(run.root))], gpus=settings.gpus)


def _refuse_unwritable_names(folder: Path) -> None:
    """Refuse a run directory whose name SLURM would change in the names of logs."""
    signs = {"%": "a percent sign", "\\": "a backslash", "\n": "a line break"}
    for sign, name in signs.items():
        if sign in str(folder):
            raise RunError(
                f"{folder} holds {name}, which SLURM changes in the names of logs; use "
                "another --run"
            )
