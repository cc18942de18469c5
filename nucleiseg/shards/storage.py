"""The plan on disk."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nucleiseg.atomic import atomic_path
from nucleiseg.errors import RunError
from nucleiseg.shards.entries import NONE, ROW, Entries
from nucleiseg.shards.plan import ArchiveRef, Plan

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
        # The rectangle of a large image, else null.
        ("top", pa.int64()),
        ("left", pa.int64()),
        ("bottom", pa.int64()),
        ("right", pa.int64()),
    ]
)


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan as Parquet, atomically."""
    entries = plan.columns
    texts = {"dataset": entries.datasets, "reason": entries.reasons}
    columns = [
        _to_arrow(entries.rows[field.name], field.type, texts.get(field.name))
        for field in _SCHEMA
    ]
    metadata = {
        "archives": json.dumps([asdict(archive) for archive in plan.archives]),
        "settings": json.dumps(plan.settings),
        "shard_pixels": json.dumps(plan.shard_pixels),
        "identity": plan.identity,
    }
    table = pa.Table.from_arrays(columns, schema=_SCHEMA.with_metadata(metadata))
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
        # Not by path: that looks for a whole dataset of files, which takes longer.
        with pq.ParquetFile(path) as file:
            table = file.read()
        metadata = table.schema.metadata
        archives = json.loads(metadata[b"archives"])
        texts: dict[str, tuple[str, ...]] = {}
        rows = np.empty(table.num_rows, dtype=ROW)
        for field in _SCHEMA:
            rows[field.name], texts[field.name] = _from_arrow(table.column(field.name))
        plan = Plan(
            tuple(ArchiveRef(**archive) for archive in archives),
            Entries(rows, texts["dataset"], texts["reason"]),
            json.loads(metadata[b"settings"]),
            json.loads(metadata[b"shard_pixels"]),
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


def _to_arrow(values: NDArray[Any], kind: Any, texts: tuple[str, ...] | None) -> Any:
    column = pa.array(np.ascontiguousarray(values), mask=values == NONE)
    if texts is None:
        return column.cast(kind)
    return pa.DictionaryArray.from_arrays(column, pa.array(texts, kind)).cast(kind)


def _from_arrow(column: Any) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Values, or their places among the different texts in the order of the first."""
    texts: tuple[str, ...] = ()
    array = column.combine_chunks()
    if pa.types.is_string(column.type):
        encoded = array.dictionary_encode()
        array, texts = encoded.indices, tuple(encoded.dictionary.to_pylist())
    return array.fill_null(NONE).to_numpy(zero_copy_only=False), texts
