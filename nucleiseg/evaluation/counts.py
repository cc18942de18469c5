"""The counts of one side, read from a table or made from label images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nucleiseg.evaluation.labels import describe_instances, open_labels, read_pieces
from nucleiseg.evaluation.tables import is_table, read_table
from nucleiseg.metrics import count_instances

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Counts:
    """The counts of one side, and where they come from."""

    name: str
    """The table or label images, as the user named them."""
    rows: pd.DataFrame
    """One row an image: group (the dataset's name, "" where it has none), index and
    count (nullable integers), reason (why there is no count), and archive and dataset
    if a table has them."""
    notes: list[str]
    """What a reader of the scores must know of how instances were made."""


def read_counts(name: str, min_area_px: int = 0) -> Counts:
    """Read a table of counts, or count the nuclei of label images."""
    if is_table(name):
        return Counts(name, read_table(name), [])
    return _count_labels(name, min_area_px)


def _count_labels(name: str, min_area_px: int) -> Counts:
    import pandas as pd

    datasets = open_labels(name, min_area_px)
    parts = []
    for dataset in datasets:
        pieces = [count_instances(piece) for piece in read_pieces(dataset)]
        counts = np.concatenate([np.zeros(0, np.int64), *pieces])
        part = {"group": dataset.group, "index": range(len(counts)), "count": counts}
        parts.append(pd.DataFrame(part).astype({"index": "Int64", "count": "Int64"}))
    rows = pd.concat(parts, ignore_index=True).assign(reason="")
    return Counts(name, rows, describe_instances(datasets))
