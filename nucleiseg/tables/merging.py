"""The one table that partial tables are merged into."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from nucleiseg.config import InstancesConfig
from nucleiseg.errors import RunError
from nucleiseg.runs import CountRun, atomic_path
from nucleiseg.shards import Entry, Plan
from nucleiseg.tables.ahead import map_ahead
from nucleiseg.tables.blocks import join_partials
from nucleiseg.tables.output import regroup, write_csv, write_parquet
from nucleiseg.tables.partial import read_partial
from nucleiseg.tables.parts import refuse_surplus
from nucleiseg.tables.rows import QUALITY, ROWS

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
    """Shards without a partial table; 0 unless an incomplete table was asked for."""


def merge(
    run: CountRun,
    plan: Plan,
    table_format: TableFormat,
    *,
    compute: str | None,
    incomplete: bool = False,
) -> Merged:
    """Merge the partial tables of all shards, in the plan's order.

    Memory does not grow with the number of images: a few tables are read ahead.

    Parameters
    ----------
    run : CountRun
    plan : Plan
    table_format : {"csv", "parquet", "notebook"}
    compute : str or None
        Identity of the compute setting that all must have.
    incomplete : bool
        Leave out shards that have no partial table yet, and large images of which any
        block has none; the table's name says so.

    Raises
    ------
    RunError
        A partial table is missing, damaged, foreign or surplus; it is named.
    """
    if table_format == "notebook":
        check_notebook_format(plan)
    refuse_surplus(run, plan)
    path = run.table(table_format, incomplete=incomplete)
    reader = _PartReader(run, plan, compute, incomplete=incomplete)
    counter = _Counter()
    tables = map_ahead(reader.read, _group_blocks(plan.entries), size=_count_rows)
    groups = counter.watch(regroup(counter.unpack(tables), TABLE, _GROUP_ROWS))
    with atomic_path(path) as temporary:
        if table_format == "parquet":
            write_parquet(temporary, groups, TABLE, _GROUP_ROWS)
        else:
            write_csv(temporary, groups, notebook=table_format == "notebook")
    return Merged(
        path,
        counter.n_rows - counter.n_unreadable,
        counter.n_failed,
        counter.n_nuclei,
        counter.failures,
        counter.n_missing,
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


def _group_blocks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Entries one by one, but the blocks of one image together."""
    group: list[Entry] = []
    for entry in entries:
        if group and (entry.block is None or entry.is_first_block):
            yield group
            group = []
        group.append(entry)
    if group:
        yield group


def _count_rows(group: Sequence[Entry]) -> int:
    return sum(entry.n_images for entry in group)


@dataclass(frozen=True)
class _Piece:
    """Rows of the table, and what they stand for."""

    table: pa.Table | None
    """None where it is left out."""
    n_unreadable: int = 0
    n_missing: int = 0


class _PartReader:
    """Reads the rows of one shard, or of all blocks of one image."""

    def __init__(
        self, run: CountRun, plan: Plan, compute: str | None, *, incomplete: bool
    ) -> None:
        self._run = run
        self._plan = plan
        self._compute = compute
        self._incomplete = incomplete

    def read(self, group: Sequence[Entry]) -> _Piece:
        first = group[0]
        if first.shard is None:
            return _Piece(self._complete(first, _list_unreadable(first)), 1)
        partials = [self._read_partial(shard) for shard in group]
        there = [partial for partial in partials if partial is not None]
        if len(there) < len(group):
            return _Piece(None, n_missing=len(group) - len(there))
        rows = there[0] if first.block is None else self._join(group, there)
        return _Piece(self._complete(first, rows))

    def _join(self, blocks: Sequence[Entry], partials: Sequence[pa.Table]) -> pa.Table:
        settings = InstancesConfig.model_validate(self._plan.settings["instances"])
        try:
            row = join_partials(blocks, partials, settings)
        except ValueError as error:
            numbers = [block.shard for block in blocks]
            raise RunError(
                f"blocks {self._plan.describe(blocks[0])} and following, shards "
                f"{numbers[0]} to {numbers[-1]}, cannot be joined ({error}); delete "
                f"their partial tables in {self._run.parts} and run the same command "
                "again"
            ) from error
        return pa.Table.from_pylist([row.as_dict()], schema=ROWS)

    def _read_partial(self, shard: Entry) -> pa.Table | None:
        partial = read_partial(self._run, self._plan, shard, compute=self._compute)
        if partial is None and not self._incomplete:
            assert shard.shard is not None
            raise RunError(
                f"shard {shard.shard} ({self._plan.describe(shard)}) has no partial "
                f"table {self._run.part(shard.shard)}; run the same command again to "
                "compute it"
            )
        return partial

    def _complete(self, entry: Entry, rows: pa.Table) -> pa.Table:
        """Put the columns beside the rows that are the same for all of them."""
        constants = {
            "archive": self._plan.archives[entry.archive].name,
            "dataset": entry.dataset,
        }
        columns = [
            pa.repeat(pa.scalar(constants[field.name], field.type), rows.num_rows)
            if field.name in constants
            else rows.column(field.name)
            for field in TABLE
        ]
        return pa.Table.from_arrays(columns, schema=TABLE)


def _list_unreadable(entry: Entry) -> pa.Table:
    row = {"status": "failed", "reason": entry.reason}
    return pa.Table.from_pylist([row], schema=ROWS)


class _Counter:
    """Sums up what passes by."""

    _N_EXAMPLES = 5

    def __init__(self) -> None:
        self.n_rows = 0
        self.n_unreadable = 0
        self.n_missing = 0
        self.n_failed = 0
        self.n_nuclei = 0
        self.failures: list[str] = []

    def unpack(self, pieces: Iterator[_Piece]) -> Iterator[pa.Table]:
        for piece in pieces:
            self.n_unreadable += piece.n_unreadable
            self.n_missing += piece.n_missing
            if piece.table is not None:
                yield piece.table

    def watch(self, groups: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for group in groups:
            failed = group.filter(pc.not_equal(group.column("status"), "ok"))
            self.n_rows += group.num_rows
            self.n_failed += failed.num_rows
            self.n_nuclei += pc.sum(group.column("count")).as_py() or 0
            n_more = self._N_EXAMPLES - len(self.failures)
            examples = failed.slice(0, n_more).to_pylist()
            self.failures += map(_describe_failure, examples)
            yield group


def _describe_failure(row: dict[str, Any]) -> str:
    name = row["archive"]
    if row["dataset"] is not None:
        name += f":{row['dataset']}"
    if row["index"] is not None:
        name += f" image {row['index']}"
    return f"{name}: {row['reason']}"
