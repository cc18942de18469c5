"""The one table that partial tables are merged into."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from nucleiseg.errors import RunError
from nucleiseg.runs import CountRun, atomic_path
from nucleiseg.shards import Entry, Plan
from nucleiseg.tables.partial import QUALITY, read_partial

TableFormat = Literal["csv", "parquet", "notebook"]

TABLE = pa.schema(
    [
        ("index", pa.int64()),
        ("count", pa.int64()),
        ("archive", pa.string()),
        ("dataset", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        *QUALITY,
    ]
)
"""Columns of the table; `index` and `count` are nullable."""

# Groups of rows of one size, so that a Parquet file does not show the shards.
_GROUP_ROWS = 65_536


@dataclass(frozen=True)
class Merged:
    """What the table holds."""

    path: Path
    n_images: int
    """Rows of images; unreadable inputs are not among them."""
    n_failed: int
    """Failed images and unreadable inputs."""
    n_nuclei: int
    failures: list[str]
    """The first few failures, in words."""
    n_missing: int = 0
    """Shards that are not in it; 0 unless an incomplete table was asked for."""


def merge(
    run: CountRun,
    plan: Plan,
    table_format: TableFormat,
    *,
    compute: str | None,
    incomplete: bool = False,
) -> Merged:
    """Merge the partial tables of all shards, in the plan's order.

    Memory does not grow with the number of images: tables are read one by one.

    Parameters
    ----------
    run : CountRun
    plan : Plan
    table_format : {"csv", "parquet", "notebook"}
    compute : str or None
        Identity of the compute setting that all must have.
    incomplete : bool
        Leave out shards that have no partial table yet; the table's name says so.

    Raises
    ------
    RunError
        A partial table is missing, damaged, foreign or surplus; it is named.
    """
    if table_format == "notebook":
        check_notebook_format(plan)
    _refuse_surplus(run, plan)
    path = run.table(table_format, incomplete=incomplete)
    counter = _Counter(plan)
    tables = _tables(run, plan, compute, incomplete=incomplete)
    groups = _regroup(counter.watch(tables))
    with atomic_path(path) as temporary:
        if table_format == "parquet":
            with pq.ParquetWriter(temporary, TABLE) as writer:
                for group in groups:
                    writer.write_table(group, row_group_size=_GROUP_ROWS)
        else:
            _write_csv(temporary, groups, notebook=table_format == "notebook")
    return Merged(
        path,
        counter.n_images,
        counter.n_failed,
        counter.n_nuclei,
        counter.failures,
        len(plan.shards) - counter.n_shards,
    )


def check_notebook_format(plan: Plan) -> None:
    """Refuse what the notebook's two columns cannot tell apart.

    Raises
    ------
    RunError
        The plan has several datasets, or inputs that cannot be read.
    """
    if len(plan.datasets) > 1:
        raise RunError(
            "--format notebook has a row number and a count only, and this run has "
            f"{len(plan.datasets)} datasets; count one dataset, or use --format csv"
        )
    for entry in plan.unreadable:
        raise RunError(
            "--format notebook cannot show that an input failed, and "
            f"{plan.describe(entry)} cannot be read: {entry.reason}; leave it out, or "
            "use --format csv"
        )


def _refuse_surplus(run: CountRun, plan: Plan) -> None:
    planned = {
        run.part(shard.shard).name for shard in plan.shards if shard.shard is not None
    }
    for path in sorted(run.parts.glob("[!.]*")):
        if path.name not in planned:
            raise RunError(
                f"{path} is no shard of the plan; move it away and run the same "
                "command again"
            )


def _tables(
    run: CountRun, plan: Plan, compute: str | None, *, incomplete: bool
) -> Iterator[tuple[Entry, pa.Table]]:
    for entry in plan.entries:
        name = plan.archives[entry.archive].name
        if entry.shard is None:
            row = {
                "archive": name,
                "dataset": entry.dataset,
                "status": "failed",
                "reason": entry.reason,
            }
            yield entry, pa.Table.from_pylist([row], schema=TABLE)
            continue
        partial = read_partial(run, plan, entry, compute=compute)
        if partial is None and incomplete:
            continue
        if partial is None:
            raise RunError(
                f"shard {entry.shard} ({plan.describe(entry)}) has no partial table "
                f"{run.part(entry.shard)}; run the same command again to compute it"
            )
        constants = {"archive": name, "dataset": entry.dataset}
        columns = [
            pa.array([constants[field.name]] * partial.num_rows, field.type)
            if field.name in constants
            else partial.column(field.name)
            for field in TABLE
        ]
        yield entry, pa.Table.from_arrays(columns, schema=TABLE)


class _Counter:
    """Sums up the tables that pass by."""

    _N_EXAMPLES = 5

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.n_shards = 0
        self.n_images = 0
        self.n_failed = 0
        self.n_nuclei = 0
        self.failures: list[str] = []

    def watch(self, tables: Iterator[tuple[Entry, pa.Table]]) -> Iterator[pa.Table]:
        for entry, table in tables:
            if entry.shard is not None:
                self.n_shards += 1
                self.n_images += table.num_rows
            self.n_nuclei += sum(n for n in table.column("count").to_pylist() if n)
            for row in table.filter(_is_failed(table)).to_pylist():
                self.n_failed += 1
                if len(self.failures) < self._N_EXAMPLES:
                    self.failures.append(_describe_failure(row))
            yield table


def _is_failed(table: pa.Table) -> pa.Array:
    return pa.array([value != "ok" for value in table.column("status").to_pylist()])


def _describe_failure(row: dict[str, Any]) -> str:
    name = row["archive"]
    if row["dataset"] is not None:
        name += f":{row['dataset']}"
    if row["index"] is not None:
        name += f" image {row['index']}"
    return f"{name}: {row['reason']}"


def _regroup(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Cut a stream of tables anew into groups of one size; at least one group."""
    waiting: list[pa.Table] = []
    n_waiting = 0
    for table in tables:
        waiting.append(table)
        n_waiting += table.num_rows
        while n_waiting >= _GROUP_ROWS:
            joined = pa.concat_tables(waiting)
            yield joined.slice(0, _GROUP_ROWS).combine_chunks()
            waiting = [joined.slice(_GROUP_ROWS)]
            n_waiting -= _GROUP_ROWS
    yield pa.concat_tables([TABLE.empty_table(), *waiting]).combine_chunks()


def _write_csv(path: Path, groups: Iterator[pa.Table], *, notebook: bool) -> None:
    # N10: pandas, two columns, a byte order mark; elsewhere plain UTF-8.
    encoding = "utf-8-sig" if notebook else "utf-8"
    with path.open("w", encoding=encoding, newline="") as stream:
        is_first = True
        for group in groups:
            if notebook:
                group = group.select(["index", "count"])
            _append_csv(stream, group, header=is_first)
            is_first = False


def _append_csv(stream: TextIO, group: pa.Table, *, header: bool) -> None:
    import pandas as pd

    # Nullable integers: an empty count must not turn the others into floats.
    frame = group.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    frame.to_csv(stream, header=header, index=False, lineterminator="\n")
