"""Where shards are computed: dask workers on this machine.

The run directory is the truth. What dask loses or runs twice changes nothing but the
time: a worker writes a shard's partial table atomically, and returns one that is there.
"""

from nucleiseg.cluster.team import Team, open_team
from nucleiseg.cluster.workers import Workers, plan_workers

__all__ = ["Team", "Workers", "open_team", "plan_workers"]
