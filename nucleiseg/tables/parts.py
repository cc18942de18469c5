"""Which partial tables are there: one listing of their folder, no file opened."""

import os

import numpy as np
from numpy.typing import NDArray

from nucleiseg.errors import RunError
from nucleiseg.runs import CountRun
from nucleiseg.shards import Entries, Plan


def find_done(run: CountRun, plan: Plan) -> NDArray[np.bool_]:
    """Find which shards have a partial table, by name alone.

    On a network file system a look at each of ten thousand names is as many round
    trips; a listing is a few. It may be seconds old there: a shard that is done in
    truth then counts as missing, and who sets out to compute it finds its table.

    Returns
    -------
    (N,) bool ndarray
        By shard number.
    """
    return _list_parts(run, len(plan.shards))[0]


def find_missing(run: CountRun, plan: Plan) -> Entries:
    """Find the shards without a partial table, by name alone.

    Whether a table belongs to its shard is checked when it is merged.
    """
    return plan.shards.select(~find_done(run, plan))


def refuse_surplus(run: CountRun, plan: Plan) -> None:
    """Refuse files among the partial tables that are no shard's.

    Raises
    ------
    RunError
        There is one; it is named.
    """
    surplus = _list_parts(run, len(plan.shards))[1]
    if surplus:
        raise RunError(
            f"{run.parts / min(surplus)} is no shard of the plan; move it away and run "
            "the same command again"
        )


def _list_parts(run: CountRun, n_shards: int) -> tuple[NDArray[np.bool_], list[str]]:
    """Which shards have a file, and the names of files that are no shard's."""
    is_done = np.zeros(n_shards, dtype=np.bool_)
    surplus = []
    try:
        listing = os.scandir(run.parts)
    except FileNotFoundError:
        return is_done, []
    with listing:
        for found in listing:
            number = _read_number(run, found.name)
            if number is not None and number < n_shards:
                is_done[number] = True
            # Hidden: what is being written.
            elif not found.name.startswith("."):
                surplus.append(found.name)
    return is_done, surplus


def _read_number(run: CountRun, name: str) -> int | None:
    """Shard number of a partial table's name; None of any other name."""
    stem = name.partition(".")[0]
    if not (stem.isascii() and stem.isdecimal()):
        return None
    number = int(stem)
    return number if run.part(number).name == name else None
