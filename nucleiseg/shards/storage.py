"""The plan on disk."""

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nucleiseg.errors import RunError
from nucleiseg.runs import atomic_path
from nucleiseg.shards.plan import ArchiveRef, Entry, Plan

_SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),
        ("archive", pa.int32()),
        ("dataset", pa.string()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("height", pa.int64()),
        ("width", pa.int64()),
        ("reason", pa.string()),
    ]
)


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan as Parquet, atomically."""
    rows = [asdict(entry) for entry in plan.entries]
    metadata = {
        "archives": json.dumps([asdict(archive) for archive in plan.archives]),
        "settings": json.dumps(plan.settings),
        "identity": plan.identity,
    }
    table = pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata(metadata))
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def read_plan(path: Path) -> Plan:
    """Read a plan back.

    Raises
    ------
    RunError
        It is missing or damaged.
    """
    try:
        table = pq.read_table(path)
        metadata = table.schema.metadata
        archives = json.loads(metadata[b"archives"])
        plan = Plan(
            tuple(ArchiveRef(**archive) for archive in archives),
            tuple(Entry(**row) for row in table.to_pylist()),
            json.loads(metadata[b"settings"]),
        )
        identity = metadata[b"identity"].decode()
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"plan {path} cannot be read ({' '.join(str(error).split())}); is this a "
            "count run's directory?"
        ) from error
    if plan.identity != identity:
        raise RunError(
            f"plan {path} was changed after it was written; use another --run"
        )
    return plan
