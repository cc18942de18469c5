"""A stream of rows into a file."""

from collections.abc import Iterator
from pathlib import Path
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


def _append_csv(stream: TextIO, group: pa.Table, *, header: bool) -> None:
    import pandas as pd

    # Nullable integers: an empty count must not turn the others into floats.
    frame = group.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    frame.to_csv(stream, header=header, index=False, lineterminator="\n")
