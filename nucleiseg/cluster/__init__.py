"""Where work is computed: dask workers on this machine, or in the jobs of a cluster.

The run directory is the truth. What SLURM or dask loses or runs twice changes nothing
but the time: a worker writes a shard's partial table atomically, and returns one that
is there.
"""

from nucleiseg.cluster import slurm
from nucleiseg.cluster.dask_team import open_team
from nucleiseg.cluster.gathering import GatheredTeam, gather
from nucleiseg.cluster.jobs import CountJob, TrainJob
from nucleiseg.cluster.passes import Passes
from nucleiseg.cluster.records import (
    Record,
    is_cancelled,
    read_records,
    read_run_state,
)
from nucleiseg.cluster.rendezvous import remove_keys
from nucleiseg.cluster.sbatch import Batch, make_sbatch_text
from nucleiseg.cluster.sent import (
    Cluster,
    Submission,
    list_queued,
    read_submissions,
    record_submission,
)
from nucleiseg.cluster.submission import submit
from nucleiseg.cluster.team import Team
from nucleiseg.cluster.workers import Workers, expect_workers, plan_workers

__all__ = [
    "Batch",
    "Cluster",
    "CountJob",
    "GatheredTeam",
    "Passes",
    "Record",
    "Submission",
    "Team",
    "TrainJob",
    "Workers",
    "expect_workers",
    "gather",
    "is_cancelled",
    "list_queued",
    "make_sbatch_text",
    "open_team",
    "plan_workers",
    "read_records",
    "read_run_state",
    "read_submissions",
    "record_submission",
    "remove_keys",
    "slurm",
    "submit",
]
