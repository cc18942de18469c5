"""Partial tables of blocks, and the row of the image that they make up."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nucleiseg.config import InstancesConfig
from nucleiseg.instances import BlockSummary, join_blocks, number_blocks
from nucleiseg.quality import Calibration
from nucleiseg.runs import CountRun
from nucleiseg.shards import Entry, Plan
from nucleiseg.tables.rows import ImageRow, add_columns
from nucleiseg.tables.sealed import write_sealed

_Parts = list[tuple[tuple[slice, slice], BlockSummary]]

BLOCK = pa.schema(
    [
        ("index", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("payload", pa.binary()),
    ]
)
"""Columns of a block's partial table, which has one row: the position of its image,
and the bytes of its summary."""


def block_schema(plan: Plan) -> pa.Schema:
    """Columns of a block's partial table in a plan, also with labels and nuclei."""
    return add_columns(BLOCK, plan)


@dataclass(frozen=True)
class BlockRow:
    """What is kept of a block: what was found, or why nothing was."""

    summary: bytes | None
    """Of :meth:`nucleiseg.instances.BlockSummary.to_bytes`; None where it failed."""
    reason: str | None = None
    """Why it failed."""
    labels: bytes | None = None
    """Its packed label image, where one is made and it has any nucleus."""
    nuclei: bytes | None = None
    """Its packed nuclei, likewise; in the order of its labels."""


def write_block_partial(
    run: CountRun, plan: Plan, shard: Entry, row: BlockRow, *, compute: str
) -> None:
    """Write the partial table of a block beside its name and rename it.

    Parameters
    ----------
    run : CountRun
    plan : Plan
    shard : Entry
        Of a block.
    row : BlockRow
    compute : str
        Identity of the compute setting it was made with.
    """
    assert shard.shard is not None
    assert shard.block is not None
    assert (row.summary is None) != (row.reason is None)
    values = {
        "index": shard.start,
        "status": "ok" if row.reason is None else "failed",
        "reason": row.reason,
        "payload": row.summary,
        "labels": row.labels,
        "nuclei": row.nuclei,
    }
    table = pa.Table.from_pylist([values], schema=block_schema(plan))
    write_sealed(run.part(shard.shard), table, plan, shard, compute=compute)


def join_partials(
    shards: Sequence[Entry],
    partials: Sequence[pa.Table],
    settings: InstancesConfig,
    calibration: Calibration | None = None,
) -> ImageRow:
    """Make the row of a large image of the partial tables of its blocks.

    Parameters
    ----------
    shards : sequence of Entry
        All blocks of the image, in order.
    partials : sequence of Table
        Of each of them.
    settings : InstancesConfig
        How nuclei were made of probabilities.
    calibration : Calibration, optional
        The model's.

    Returns
    -------
    ImageRow
        Failed, for the first reason, where any block has failed.

    Raises
    ------
    ValueError
        The summaries do not fit together, or another version wrote them.
    """
    blocks, reason = _read_blocks(shards, partials)
    first = shards[0]
    if reason is not None:
        return ImageRow(first.start, None, reason)
    summary = join_blocks(blocks, first.image_shape, settings, calibration=calibration)
    return ImageRow(first.start, summary)


def number_partials(
    shards: Sequence[Entry], partials: Sequence[pa.Table], settings: InstancesConfig
) -> list[NDArray[np.uint32]] | None:
    """Give the nuclei of a large image their numbers; see :func:`number_blocks`.

    Parameters are the first three of :func:`join_partials`, and exceptions the same;
    None where any block has failed.
    """
    blocks, reason = _read_blocks(shards, partials)
    if reason is not None:
        return None
    return number_blocks(blocks, shards[0].image_shape, settings)


def _read_blocks(
    shards: Sequence[Entry], partials: Sequence[pa.Table]
) -> tuple[_Parts, str | None]:
    """Read the summaries of blocks, up to the first that failed, and why it did."""
    blocks: _Parts = []
    for shard, partial in zip(shards, partials, strict=True):
        (row,) = partial.to_pylist()
        if row["status"] != "ok":
            return blocks, str(row["reason"])
        assert shard.block is not None
        blocks.append((shard.block.core, BlockSummary.from_bytes(row["payload"])))
    return blocks, None
