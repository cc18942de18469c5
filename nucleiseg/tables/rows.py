"""One row an image: what a partial table and the merged one say of it."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from nucleiseg.instances import ImageSummary
from nucleiseg.shards import Plan

QUALITY = (
    ("foreground_share", pa.float64()),
    ("mean_area_px", pa.float64()),
    ("border_count", pa.int64()),
    ("saturated_share", pa.float64()),
    ("confidence", pa.float64()),
    ("flags", pa.string()),
)
"""Columns that say how far a count can be trusted."""

ROWS = pa.schema(
    [
        ("index", pa.int64()),
        ("count", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        *QUALITY,
    ]
)
"""Columns of a partial table of whole images."""

_OF_SUMMARY = frozenset({"count", *(name for name, _ in QUALITY)})

LABELS = pa.field("labels", pa.large_binary())
"""Column of a partial table where label images are made, too: those of an image, or of
a block, as :func:`nucleiseg.labels.encode` packs them; null without any nucleus."""

NUCLEI = pa.field("nuclei", pa.large_binary())
"""Column of a partial table where label images are made, too: the nuclei of an image,
or of a block, in the order of its labels, as :class:`nucleiseg.instances.Nuclei` packs
them; null without any."""


@dataclass(frozen=True, slots=True)
class ImageRow:
    """Outcome of one image: a shard may have a hundred thousand of them."""

    index: int
    """Position in its dataset."""
    summary: ImageSummary | None
    """None where the image failed."""
    reason: str | None = None
    """Why it failed."""
    labels: bytes | None = None
    """Its packed label image, where one is made and it has any nucleus."""
    nuclei: bytes | None = None
    """Its packed nuclei, likewise."""

    @property
    def status(self) -> str:
        """`ok` or `failed`."""
        return "ok" if self.summary else "failed"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ImageRow":
        """Make a row from the values of a partial table."""
        if values["status"] != "ok":
            return cls(values["index"], None, values["reason"])
        summary = ImageSummary(**{name: values[name] for name in _OF_SUMMARY})
        return cls(
            values["index"],
            summary,
            labels=values.get("labels"),
            nuclei=values.get("nuclei"),
        )


# Rows that are objects at a time: each takes 400 bytes, and 60 in a table.
_BATCH_ROWS = 1024


def tabulate(rows: Iterable[ImageRow], plan: Plan) -> pa.Table:
    """Make the partial table of images of a plan.

    Rows are taken as they come, and are not kept.
    """
    return make_table(rows, add_columns(ROWS, plan))


def make_table(rows: Iterable[ImageRow], schema: pa.Schema) -> pa.Table:
    """Make the table of rows, some at a time and column by column."""
    coming = iter(rows)
    batches = []
    while some := list(itertools.islice(coming, _BATCH_ROWS)):
        batches.append(_make_batch(some, schema))
    return pa.Table.from_batches(batches, schema)


def _make_batch(rows: Sequence[ImageRow], schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for field in schema:
        values: list[Any]
        if field.name in _OF_SUMMARY:
            summaries = (row.summary for row in rows)
            values = [one and getattr(one, field.name) for one in summaries]
        else:
            values = [getattr(row, field.name) for row in rows]
        arrays.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def add_columns(schema: pa.Schema, plan: Plan) -> pa.Schema:
    """Add to the columns of a partial table those of what a plan has made besides."""
    if plan.has_labels:
        schema = schema.append(LABELS)
    return schema.append(NUCLEI) if plan.has_nuclei else schema
