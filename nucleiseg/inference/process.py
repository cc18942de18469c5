"""The engine of a worker process: its network is loaded once, for all its shards."""

import functools
from pathlib import Path

from nucleiseg.errors import RunError
from nucleiseg.inference.engine import Engine, ShardResult
from nucleiseg.runs import CountRun


@functools.lru_cache(maxsize=1)
def get_engine(root: Path, plan: str, n_threads: int) -> Engine:
    """Get the engine of this process: the network is loaded once.

    Parameters
    ----------
    root : Path
        The run directory.
    plan : str
        Identity of the plan that is to be computed.
    n_threads : int

    Raises
    ------
    RunError
        Another command has planned the directory anew.
    """
    engine = Engine(CountRun(root), n_threads=n_threads)
    if engine.plan.identity != plan:
        raise RunError(
            f"{root} was planned anew by another command; use another --run for one of "
            "the two"
        )
    return engine


def compute_shard(root: Path, plan: str, number: int, n_threads: int) -> ShardResult:
    """Compute a shard in a worker process, which keeps its network between calls."""
    return get_engine(root, plan, n_threads).compute_shard(number)
