"""Partial tables, and the one table they are merged into."""

from nucleiseg.tables.blocks import BlockRow, write_block_partial
from nucleiseg.tables.merging import (
    TABLE,
    Merged,
    TableFormat,
    check_notebook_format,
    merge,
)
from nucleiseg.tables.partial import (
    read_partial,
    read_rows,
    write_partial,
    write_rows,
)
from nucleiseg.tables.parts import find_done, find_missing
from nucleiseg.tables.rows import ImageRow, tabulate

__all__ = [
    "TABLE",
    "BlockRow",
    "ImageRow",
    "Merged",
    "TableFormat",
    "check_notebook_format",
    "find_done",
    "find_missing",
    "merge",
    "read_partial",
    "read_rows",
    "tabulate",
    "write_block_partial",
    "write_partial",
    "write_rows",
]
