"""Pictures and plots from arrays, tables and history.

A picture is a plain array until the last line: `pixels` makes it grey and enlarges
it, `outlines` draws the nuclei, `page` sets words and pictures side by side and
writes the file. The savers in `pictures` and `plots` only put these together.

matplotlib sets type and draws plots through `Figure` objects alone, never through
pyplot, whose global state is neither safe in threads nor needed without a display.
The same input gives the same bytes.
"""

from nucleiseg.report.errors import ERROR_COLOURS, save_errors, save_ways
from nucleiseg.report.naming import name_files
from nucleiseg.report.pictures import (
    save_comparison,
    save_inspection,
    save_montage,
    save_prediction,
    save_soft_prediction,
)
from nucleiseg.report.pixels import overlay
from nucleiseg.report.plots import save_count_scatter, save_history

__all__ = [
    "ERROR_COLOURS",
    "name_files",
    "overlay",
    "save_comparison",
    "save_count_scatter",
    "save_errors",
    "save_history",
    "save_inspection",
    "save_montage",
    "save_prediction",
    "save_soft_prediction",
    "save_ways",
]
