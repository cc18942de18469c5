"""Partial tables: one a shard, written beside their name and renamed."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from nucleiseg.errors import RunError
from nucleiseg.runs import CountRun
from nucleiseg.shards import Entry, Plan
from nucleiseg.tables.blocks import block_schema
from nucleiseg.tables.rows import ROWS, ImageRow, add_columns, tabulate
from nucleiseg.tables.sealed import read_content, unseal, write_sealed


def write_partial(
    run: CountRun, plan: Plan, shard: Entry, table: pa.Table, *, compute: str
) -> None:
    """Write a shard's partial table beside its name and rename it.

    Parameters
    ----------
    run : CountRun
    plan : Plan
    shard : Entry
        Of whole images; for a block see :func:`write_block_partial`.
    table : Table
        A row an image, in order; see :func:`tabulate`.
    compute : str
        Identity of the compute setting it was made with.
    """
    assert shard.shard is not None
    assert shard.block is None
    write_sealed(run.part(shard.shard), table, plan, shard, compute=compute)


def write_rows(
    path: Path, plan: Plan, shard: Entry, rows: Sequence[ImageRow], *, compute: str
) -> None:
    """Write rows of some of a shard's images under any name."""
    write_sealed(path, tabulate(rows, plan), plan, shard, compute=compute)


def read_partial(
    run: CountRun, plan: Plan, shard: Entry, *, compute: str | None = None
) -> pa.Table | None:
    """Read a shard's partial table; None where there is none yet.

    Returns
    -------
    Table or None
        See :func:`unpack_partial`.

    Raises
    ------
    RunError
        See :func:`unpack_partial`.
    """
    content = fetch_partial(run, shard)
    if content is None:
        return None
    return unpack_partial(run, plan, shard, content, compute=compute)


def fetch_partial(run: CountRun, shard: Entry) -> bytes | None:
    """Read the bytes of a shard's partial table; None where there is none yet.

    Raises
    ------
    RunError
        They cannot be read.
    """
    assert shard.shard is not None
    return read_content(run.part(shard.shard))


def unpack_partial(
    run: CountRun, plan: Plan, shard: Entry, content: bytes, *, compute: str | None
) -> pa.Table:
    """Make a table of the bytes of a shard's partial table.

    Returns
    -------
    Table
        A row an image; of a block, one row with `status`, `reason` and its summary.
        With `labels` and `nuclei`, where label images are made.

    Raises
    ------
    RunError
        They are damaged, or belong to another plan, shard or compute setting.
    """
    assert shard.shard is not None
    schema = _rows_schema(plan) if shard.block is None else block_schema(plan)
    sealed = unseal(run.part(shard.shard), content, schema)
    sealed.check_stamps(plan, shard, compute)
    sealed.check_range(shard)
    sealed.check_content()
    return sealed.table


def read_rows(
    path: Path, plan: Plan, shard: Entry, *, compute: str
) -> dict[int, ImageRow]:
    """Read rows of a shard from a file of any name, by position in their dataset.

    A block has a row only where it failed: what it counted is no image's count.

    Raises
    ------
    RunError
        The file is missing or damaged, or belongs to another plan, shard or compute
        setting.
    """
    rows_schema = _rows_schema(plan)
    content = read_content(path)
    if content is None:
        raise RunError(f"partial table {path} is gone; run the same command again")
    sealed = unseal(path, content, rows_schema, block_schema(plan))
    sealed.check_stamps(plan, shard, compute)
    sealed.check_content()
    return {
        row["index"]: ImageRow.from_dict(row)
        for row in sealed.table.to_pylist()
        if sealed.table.schema.equals(rows_schema) or row["status"] != "ok"
    }


def _rows_schema(plan: Plan) -> pa.Schema:
    return add_columns(ROWS, plan)
