"""Partial tables, and the one table they are merged into."""

from nucleiseg.tables.merging import (
    TABLE,
    Merged,
    TableFormat,
    check_notebook_format,
    merge,
)
from nucleiseg.tables.partial import (
    ImageRow,
    find_missing,
    read_partial,
    read_rows,
    write_partial,
    write_rows,
)

__all__ = [
    "TABLE",
    "ImageRow",
    "Merged",
    "TableFormat",
    "check_notebook_format",
    "find_missing",
    "merge",
    "read_partial",
    "read_rows",
    "write_partial",
    "write_rows",
]
