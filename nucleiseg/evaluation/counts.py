"""The counts of one side, read from a table or made from label images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nucleiseg.evaluation.labels import read_pieces
from nucleiseg.evaluation.tables import read_table
from nucleiseg.metrics import count_instances

if TYPE_CHECKING:
    import pandas as pd

    from nucleiseg.evaluation.sides import Side


@dataclass(frozen=True)
class Counts:
    """The counts of one side, and where they come from."""

    name: str
    """The table or label images, as the user named them."""
    rows: pd.DataFrame
    """One row an image: group (the dataset's name, "" where it has none), place (a
    number of the dataset's own, whatever its name), index and count (nullable
    integers), reason (why there is no count), and archive and dataset if a table has
    them."""
    notes: list[str]
    """What a reader of the scores must know of how instances were made."""


def read_counts(side: Side) -> Counts:
    """Read a table of counts, or count the nuclei of label images."""
    rows = _count_labels(side) if side.table is None else read_table(side.table)
    return Counts(side.name, rows, side.describe())


def _count_labels(side: Side) -> pd.DataFrame:
    import pandas as pd

    parts = []
    for place, dataset in enumerate(side.datasets):
        pieces = [count_instances(piece) for piece in read_pieces(dataset)]
        counts = np.concatenate([np.zeros(0, np.int64), *pieces])
        part = {"index": range(len(counts)), "count": counts}
        rows = pd.DataFrame(part).astype({"index": "Int64", "count": "Int64"})
        rows = rows.assign(group=dataset.group, place=place)
        rows["count"] = rows["count"].mask(rows["index"].isin(dataset.failed))
        parts.append(rows)
    return pd.concat(parts, ignore_index=True).assign(reason="its labels are not known")
