"""How far a run is: read from its directory, with one question to SLURM at most."""

from nucleiseg.monitoring.counts import CountStatus, read_count_status
from nucleiseg.monitoring.jobs import JobsStatus
from nucleiseg.monitoring.reading import read_status
from nucleiseg.monitoring.trainings import TrainStatus, read_train_status

__all__ = [
    "CountStatus",
    "JobsStatus",
    "TrainStatus",
    "read_count_status",
    "read_status",
    "read_train_status",
]
