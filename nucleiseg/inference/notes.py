"""The notes beside partial tables that have failed images."""

import contextlib
from collections.abc import Iterator

import pyarrow as pa

from nucleiseg.atomic import create_private, write_json
from nucleiseg.runs import CountRun
from nucleiseg.shards import Entry, Plan
from nucleiseg.tables import read_partial


def count_failed(table: pa.Table) -> int:
    """Count the failed images of a partial table."""
    return int(table.column("status").to_pylist().count("failed"))


@contextlib.contextmanager
def noting_failures(
    run: CountRun, plan: Plan, shard: Entry, n_failed: int
) -> Iterator[None]:
    """Leave a note beside a partial table with failures, which is written inside.

    Before the table, so that who finds a table knows without opening it. Another
    worker may do the same shard at this moment, and have met what this one has not:
    the note is to be that of the table which stays, whoever's it is.
    """
    assert shard.shard is not None
    note = run.failure(shard.shard)

    def write(n_failed: int) -> None:
        create_private(run.failures)
        write_json(note, {"n_failed": n_failed})

    if n_failed:
        write(n_failed)
    yield
    if n_failed and not note.exists():
        write(n_failed)
    elif not n_failed and note.exists():
        note.unlink(missing_ok=True)
        there = read_partial(run, plan, shard)
        if there is not None and (n_there := count_failed(there)):
            write(n_there)
