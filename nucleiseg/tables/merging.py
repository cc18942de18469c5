"""The one table that partial tables are merged into."""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from nucleiseg.atomic import atomic_path
from nucleiseg.errors import RunError
from nucleiseg.quality import FLAGS
from nucleiseg.runs import CountRun
from nucleiseg.shards import Entry, Plan
from nucleiseg.tables.blocks import join_partials
from nucleiseg.tables.label_images import write_label_images
from nucleiseg.tables.nuclei import FoundNuclei, NucleusFile, find_nuclei
from nucleiseg.tables.output import regroup, write_csv, write_parquet
from nucleiseg.tables.parts import refuse_surplus
from nucleiseg.tables.reading import Group, PartReader
from nucleiseg.tables.rows import QUALITY, ROWS, make_table

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
    labels: Path | None = None
    """The file of label images, where they are made."""
    n_counted: int = 0
    """Images that have a count."""
    n_flagged: int = 0
    """Those of them with any flag."""
    flags: dict[str, int] = field(default_factory=dict)
    """Images with each flag that any has, in a fixed order."""
    nuclei: Path | None = None
    """The table of nuclei, where label images are made."""


def merge(
    run: CountRun,
    plan: Plan,
    table_format: TableFormat,
    *,
    compute: str | None,
    incomplete: bool = False,
) -> Merged:
    """Merge the partial tables of all shards, in the plan's order.

    Memory does not grow with the number of images: a few tables are read at once. Where
    label images are made, too, their file and the table of nuclei are there before the
    table is.

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
    parts = PartReader(run, plan, compute, incomplete=incomplete)
    maker, counter = _PieceMaker(parts), _Counter()
    pieces = map(maker.make, parts.read_groups(plan.entries))
    nuclei: NucleusFile | None = None
    if plan.has_nuclei:
        name = run.nuclei(table_format, incomplete=incomplete)
        nuclei = NucleusFile(name, plan.calibration)
    tables = _pass_on(counter.unpack(pieces), nuclei)
    groups = counter.watch(regroup(tables, TABLE, _GROUP_ROWS))
    with atomic_path(path) as temporary, nuclei or contextlib.nullcontext():
        if table_format == "parquet":
            write_parquet(temporary, groups, TABLE, _GROUP_ROWS)
        else:
            write_csv(temporary, groups, notebook=table_format == "notebook")
        labels = None
        if plan.has_labels:
            labels = run.labels(incomplete=incomplete)
            write_label_images(labels, parts, highest=counter.highest_count)
    return Merged(
        path,
        counter.n_rows - counter.n_unreadable,
        counter.n_failed,
        counter.n_nuclei,
        counter.failures,
        counter.n_missing,
        labels,
        counter.n_rows - counter.n_failed,
        counter.n_flagged,
        {name: n_images for name, n_images in counter.flags.items() if n_images},
        None if nuclei is None else nuclei.path,
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


@dataclass(frozen=True)
class _Piece:
    """Rows of the table, and what they stand for."""

    table: pa.Table | None
    """None where it is left out."""
    n_unreadable: int = 0
    n_missing: int = 0
    found: FoundNuclei | None = None
    """Nuclei of its images, where they have rows of their own."""


def _pass_on(pieces: Iterator[_Piece], nuclei: NucleusFile | None) -> Iterator[Any]:
    """Give the rows of images, and on the way write those of their nuclei."""
    for piece in pieces:
        if nuclei is not None and piece.found is not None:
            nuclei.add(piece.found)
        if piece.table is not None:
            yield piece.table


class _PieceMaker:
    """Makes the rows of one shard, or of all blocks of one image."""

    def __init__(self, parts: PartReader) -> None:
        self._parts = parts

    def make(self, group: Group) -> _Piece:
        entries, partials = group.entries, group.partials
        first = entries[0]
        if first.shard is None:
            return _Piece(self._complete(first, _list_unreadable(first)), 1)
        if group.is_missing:
            return _Piece(None, n_missing=len(entries) - len(partials))
        rows = partials[0]
        if first.block is not None:
            join = functools.partial(
                join_partials, calibration=self._parts.plan.calibration
            )
            row = self._parts.join(entries, partials, join)
            rows = make_table([row], ROWS)
        found = None
        if self._parts.plan.has_nuclei:
            found = find_nuclei(self._parts, entries, partials)
        return _Piece(self._complete(first, rows), found=found)

    def _complete(self, entry: Entry, rows: pa.Table) -> pa.Table:
        """Put the columns beside the rows that are the same for all of them."""
        constants = {
            "archive": self._parts.plan.archives[entry.archive].name,
            "dataset": entry.shown_dataset,
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
        self.highest_count = 0
        self.failures: list[str] = []
        self.n_flagged = 0
        self.flags = dict.fromkeys(FLAGS, 0)

    def unpack(self, pieces: Iterator[_Piece]) -> Iterator[_Piece]:
        for piece in pieces:
            self.n_unreadable += piece.n_unreadable
            self.n_missing += piece.n_missing
            yield piece

    def watch(self, groups: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for group in groups:
            failed = group.filter(pc.not_equal(group.column("status"), "ok"))
            self.n_rows += group.num_rows
            self.n_failed += failed.num_rows
            counts = group.column("count")
            self.n_nuclei += pc.sum(counts).as_py() or 0
            highest = pc.max(counts).as_py() or 0
            self.highest_count = max(self.highest_count, highest)
            self._count_flags(group.column("flags"))
            n_more = self._N_EXAMPLES - len(self.failures)
            examples = failed.slice(0, n_more).to_pylist()
            self.failures += map(_describe_failure, examples)
            yield group

    def _count_flags(self, flags: pa.ChunkedArray) -> None:
        flagged = flags.filter(pc.not_equal(flags, ""))
        self.n_flagged += len(flagged)
        for name in self.flags:
            found = pc.match_substring(flagged, name)
            self.flags[name] += pc.sum(found).as_py() or 0


def _describe_failure(row: dict[str, Any]) -> str:
    name = row["archive"]
    if row["dataset"] is not None:
        name += f":{row['dataset']}"
    if row["index"] is not None:
        name += f" image {row['index']}"
    return f"{name}: {row['reason']}"
