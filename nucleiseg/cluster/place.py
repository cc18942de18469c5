"""Where a job is, and what it is there for."""

import os
import socket
from dataclasses import dataclass
from typing import Literal

from nucleiseg.cluster import slurm


@dataclass(frozen=True)
class Role:
    """What a job does."""

    coordinates: bool
    n_workers: int

    @property
    def name(self) -> Literal["coordinator", "workers", "coordinator and workers"]:
        """As records and messages show it."""
        if not self.coordinates:
            return "workers"
        return "coordinator and workers" if self.n_workers else "coordinator"


@dataclass(frozen=True)
class Place:
    """What SLURM, or submitit on this machine, gave a job."""

    job_id: str
    element: int
    restarts: int
    node: str
    memory_bytes: int | None
    gpus: tuple[str, ...]
    is_slurm: bool


def find_place() -> Place:
    """Find out from the environment where this process is."""
    grant = slurm.read_grant()
    if grant is not None:
        return Place(
            job_id=grant.job_id,
            element=grant.element,
            restarts=grant.restarts,
            node=grant.node,
            memory_bytes=grant.memory_bytes,
            gpus=grant.gpus,
            is_slurm=True,
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return Place(
        job_id=os.environ.get("SUBMITIT_LOCAL_JOB_ID", str(os.getpid())),
        element=0,
        restarts=0,
        node=socket.gethostname(),
        memory_bytes=None,
        gpus=tuple(name for name in visible.split(",") if name not in ("", "-1")),
        is_slurm=False,
    )
