"""A stream of rows into a file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TextIO

import pyarrow as pa
import pyarrow.parquet as pq


def regroup(
    tables: Iterator[pa.Table], schema: pa.Schema, n_rows: int
) -> Iterator[pa.Table]:
    """Cut a stream of tables anew into groups of one size; at least one group."""
    waiting: list[pa.Table] = []
    n_waiting = 0
    for table in tables:
        waiting.append(table)
        n_waiting += table.num_rows
        while n_waiting >= n_rows:
            joined = pa.concat_tables(waiting)
            yield joined.slice(0, n_rows).combine_chunks()
            waiting = [joined.slice(n_rows)]
            n_waiting -= n_rows
    yield pa.concat_tables([schema.empty_table(), *waiting]).combine_chunks()


def write_parquet(
    path: Path, groups: Iterator[pa.Table], schema: pa.Schema, group_rows: int
) -> None:
    """Write groups of rows as Parquet."""
    with pq.ParquetWriter(path, schema) as writer:
        for group in groups:
            writer.write_table(group, row_group_size=group_rows)


def write_csv(path: Path, groups: Iterator[pa.Table], *, notebook: bool) -> None:
    """Write groups of rows as CSV, all columns or the notebook's two."""
    # N10: pandas, two columns, a byte order mark; elsewhere plain UTF-8.
    encoding = "utf-8-sig" if notebook else "utf-8"
    with path.open("w", encoding=encoding, newline="") as stream:
        is_first = True
        for group in groups:
            if notebook:
                group = group.select(["index", "count"])
            _append_csv(stream, group, header=is_first)
            is_first = False


class RowWriter(contextlib.AbstractContextManager["RowWriter"]):
    """Writes rows as they come, in groups of one size.

    Parameters
    ----------
    path : Path
        Written anew; the suffix `.parquet` makes it Parquet, any other CSV.
    schema : Schema
        Of the rows.
    group_rows : int
        Rows of a group, so that a Parquet file does not show how they came.
    """

    def __init__(self, path: Path, schema: pa.Schema, group_rows: int) -> None:
        self._schema = schema
        self._group_rows = group_rows
        self._waiting: list[pa.Table] = []
        self._n_waiting = 0
        self._parquet: pq.ParquetWriter | None = None
        self._csv: TextIO | None = None
        if path.suffix == ".parquet":
            self._parquet = pq.ParquetWriter(path, schema)
        else:
            self._csv = path.open("w", encoding="utf-8", newline="")
            _append_csv(self._csv, schema.empty_table(), header=True)

    def add(self, rows: pa.Table) -> None:
        """Take some rows, and write those that make up a group."""
        self._waiting.append(rows)
        self._n_waiting += rows.num_rows
        if self._n_waiting >= self._group_rows:
            *groups, rest = self._regroup()
            for group in groups:
                self._write(group)
            self._waiting = [rest]
            self._n_waiting = rest.num_rows

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                for group in self._regroup():
                    self._write(group)
        finally:
            for file in (self._parquet, self._csv):
                if file is not None:
                    file.close()

    def _regroup(self) -> Iterator[pa.Table]:
        return regroup(iter(self._waiting), self._schema, self._group_rows)

    def _write(self, group: pa.Table) -> None:
        if self._parquet is not None:
            self._parquet.write_table(group, row_group_size=self._group_rows)
        elif self._csv is not None:
            _append_csv(self._csv, group, header=False)


def _append_csv(stream: TextIO, group: pa.Table, *, header: bool) -> None:
    import pandas as pd

    # Nullable integers: an empty count must not turn the others into floats.
    frame = group.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    frame.to_csv(stream, header=header, index=False, lineterminator="\n")
