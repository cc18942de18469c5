"""Partial tables: one a shard, written beside their name and renamed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nucleiseg.errors import RunError
from nucleiseg.instances import ImageSummary
from nucleiseg.runs import CountRun, atomic_path
from nucleiseg.shards import Entry, Plan

QUALITY = (
    ("foreground_share", pa.float64()),
    ("mean_area_px", pa.float64()),
    ("border_count", pa.int64()),
    ("saturated_share", pa.float64()),
    ("confidence", pa.float64()),
)
"""Columns that say how far a count can be trusted."""

_PARTIAL = pa.schema(
    [
        ("index", pa.int64()),
        ("count", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        *QUALITY,
    ]
)


@dataclass(frozen=True)
class ImageRow:
    """Outcome of one image."""

    index: int
    """Position in its dataset."""
    summary: ImageSummary | None
    """None where the image failed."""
    reason: str | None = None
    """Why it failed."""

    def as_dict(self) -> dict[str, Any]:
        """Values by column of a partial table."""
        values = asdict(self.summary) if self.summary else {}
        status = "ok" if self.summary else "failed"
        return {"index": self.index, "status": status, "reason": self.reason, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ImageRow":
        """Make a row from the values of a partial table."""
        if values["status"] != "ok":
            return cls(values["index"], None, values["reason"])
        names = ["count", *(name for name, _ in QUALITY)]
        return cls(
            values["index"], ImageSummary(**{name: values[name] for name in names})
        )


def write_partial(
    run: CountRun, plan: Plan, shard: Entry, rows: Sequence[ImageRow], *, compute: str
) -> None:
    """Write a shard's partial table beside its name and rename it.

    Parameters
    ----------
    run : CountRun
    plan : Plan
    shard : Entry
    rows : sequence of ImageRow
        One an image, in order.
    compute : str
        Identity of the compute setting it was made with.
    """
    assert shard.shard is not None
    write_rows(run.part(shard.shard), plan, shard, rows, compute=compute)


def write_rows(
    path: Path, plan: Plan, shard: Entry, rows: Sequence[ImageRow], *, compute: str
) -> None:
    """Write rows of a shard under any name, as :func:`write_partial` does."""
    identity = {"plan": plan.identity, "shard": shard.shard, "compute": compute}
    schema = _PARTIAL.with_metadata({"nucleiseg": json.dumps(identity)})
    table = pa.Table.from_pylist([row.as_dict() for row in rows], schema=schema)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def read_partial(
    run: CountRun, plan: Plan, shard: Entry, *, compute: str | None = None
) -> pa.Table | None:
    """Read a shard's partial table; None where there is none yet.

    Raises
    ------
    RunError
        The file is damaged, or belongs to another plan, shard or compute setting.
    """
    assert shard.shard is not None
    path = run.part(shard.shard)
    if not path.exists():
        return None
    table = _read_table(path, plan, shard, compute)
    if table.column("index").to_pylist() != list(range(shard.start, shard.stop)):
        raise RunError(
            f"partial table {path} does not hold images {shard.start} to "
            f"{shard.stop - 1}, each once; delete it and run the same command again"
        )
    return table


def read_rows(
    path: Path, plan: Plan, shard: Entry, *, compute: str
) -> dict[int, ImageRow]:
    """Read rows of a shard from a file of any name, by position in their dataset.

    Raises
    ------
    RunError
        The file is damaged, or belongs to another plan, shard or compute setting.
    """
    table = _read_table(path, plan, shard, compute)
    return {row["index"]: ImageRow.from_dict(row) for row in table.to_pylist()}


def _read_table(path: Path, plan: Plan, shard: Entry, compute: str | None) -> pa.Table:
    try:
        table = pq.read_table(path)
        found = dict(json.loads(table.schema.metadata[b"nucleiseg"]))
        table.column("index")
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"partial table {path} is damaged ({' '.join(str(error).split())}); delete "
            "it and run the same command again"
        ) from error
    expected = {"plan": plan.identity, "shard": shard.shard}
    if compute is not None:
        expected["compute"] = compute
    for key, value in expected.items():
        if found.get(key) != value:
            raise RunError(
                f"partial table {path} belongs to another {key} ({found.get(key)!r}, "
                f"expected {value!r}); delete it and run the same command again"
            )
    return table


def find_missing(run: CountRun, plan: Plan) -> list[Entry]:
    """Find the shards without a partial table, by name alone.

    Whether a table belongs to its shard is checked when it is merged.
    """
    return [
        shard
        for shard in plan.shards
        if shard.shard is not None and not run.part(shard.shard).exists()
    ]
