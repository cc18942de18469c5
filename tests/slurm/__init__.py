"""A real SLURM for tests: several nodes and GPUs on one machine that has neither."""

from tests.slurm.cluster import PrivateSlurm, QueuedJob
from tests.slurm.config import Options
from tests.slurm.daemons import availability, best_proctrack

__all__ = ["Options", "PrivateSlurm", "QueuedJob", "availability", "best_proctrack"]
