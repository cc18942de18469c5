"""The table of nuclei, beside that of counts: one row each."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nucleiseg.atomic import atomic_path
from nucleiseg.config import InstancesConfig
from nucleiseg.instances import Nuclei, join_nuclei
from nucleiseg.quality import Calibration
from nucleiseg.shards import Entry
from nucleiseg.tables.blocks import number_partials
from nucleiseg.tables.output import RowWriter
from nucleiseg.tables.reading import PartReader
from nucleiseg.tables.rows import NUCLEI

NUCLEUS_TABLE = pa.schema(
    [
        ("index", pa.int64()),
        ("archive", pa.string()),
        ("dataset", pa.string()),
        ("label", pa.int64()),
        ("y_px", pa.float64()),
        ("x_px", pa.float64()),
        ("area_px", pa.int64()),
        ("touches_edge", pa.bool_()),
        ("confidence", pa.float64()),
    ]
)
"""Columns of the table of nuclei; `confidence` is null where the model has no
calibration. Positions are those of :meth:`nucleiseg.instances.Nuclei.find_centroids`.
"""

# Rows of a group of a Parquet file, and most of them in memory as such at once.
_GROUP_ROWS = 65_536


@dataclass(frozen=True)
class FoundNuclei:
    """The nuclei of images of one dataset, in order."""

    archive: str
    """As the table names it."""
    dataset: str
    indices: NDArray[np.int64]
    """(m,) positions of the images."""
    counts: NDArray[np.int64]
    """(m,) nuclei of each."""
    nuclei: Nuclei
    """Those of all of them."""

    def make_tables(self, calibration: Calibration | None) -> Iterator[pa.Table]:
        """Make the rows, some ten thousand at a time."""
        index = np.repeat(self.indices, self.counts)
        firsts = np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        y_px, x_px = self.nuclei.find_centroids()
        columns = {
            "index": index,
            "label": np.arange(1, len(index) + 1) - firsts,
            "y_px": y_px.round(2),
            "x_px": x_px.round(2),
            "area_px": self.nuclei.areas,
            "touches_edge": self.nuclei.at_border,
        }
        if calibration is not None:
            columns["confidence"] = self.nuclei.find_shares(calibration).round(4)
        texts = {"archive": self.archive, "dataset": self.dataset}
        for start in range(0, len(index), _GROUP_ROWS):
            part = slice(start, start + _GROUP_ROWS)
            yield _make_table({name: v[part] for name, v in columns.items()}, texts)


def _make_table(columns: dict[str, NDArray[Any]], texts: dict[str, str]) -> pa.Table:
    n_rows = len(columns["index"])
    arrays = []
    for field in NUCLEUS_TABLE:
        if field.name in columns:
            arrays.append(pa.array(columns[field.name], field.type))
        else:
            value = pa.scalar(texts.get(field.name), field.type)
            arrays.append(pa.repeat(value, n_rows))
    return pa.Table.from_arrays(arrays, schema=NUCLEUS_TABLE)


def find_nuclei(
    parts: PartReader, group: Sequence[Entry], partials: Sequence[pa.Table]
) -> FoundNuclei | None:
    """Find the nuclei of a shard, or of an image in blocks; None: it failed.

    Parameters
    ----------
    parts : PartReader
        Of a plan with nuclei.
    group : sequence of Entry
        The shard, or all blocks of the image.
    partials : sequence of Table
        Of each of them.

    Raises
    ------
    RunError
        They are not those that were counted; the shard is named.
    """
    first = group[0]
    place = (parts.plan.archives[first.archive].name, str(first.shown_dataset))
    if first.block is not None:
        joined = parts.join(group, partials, _join)
        if joined is None:
            return None
        count = np.array([len(joined)])
        return FoundNuclei(*place, np.array([first.start]), count, joined)
    try:
        counts, nuclei = _unpack(partials[0])
    except ValueError as error:
        raise parts.explain_damage(first, "nuclei", error) from error
    return FoundNuclei(*place, np.arange(first.start, first.stop), counts, nuclei)


def _unpack(rows: pa.Table) -> tuple[NDArray[np.int64], Nuclei]:
    """Unpack the nuclei of whole images: how many each has, 0 where it failed."""
    packed = [data or b"" for data in rows.column(NUCLEI.name).to_pylist()]
    found = np.array([Nuclei.count_packed(data) for data in packed], dtype=np.int64)
    counts = rows.column("count").fill_null(0).to_numpy()
    nuclei = Nuclei.from_bytes(b"".join(packed))
    wrong = np.flatnonzero(found != counts)
    if wrong.size:
        place = int(wrong[0])
        index = rows.column("index")[place].as_py()
        raise ValueError(
            f"image {index} has {found[place]} nuclei, and {counts[place]} were counted"
        )
    return counts, nuclei


def _join(
    shards: Sequence[Entry], partials: Sequence[pa.Table], settings: InstancesConfig
) -> Nuclei | None:
    """Join the nuclei of a large image's blocks; None where any of them has failed."""
    numbers = number_partials(shards, partials, settings)
    if numbers is None:
        return None
    packed = (partial.column(NUCLEI.name).to_pylist()[0] for partial in partials)
    return join_nuclei([Nuclei.from_bytes(data or b"") for data in packed], numbers)


class NucleusFile(contextlib.AbstractContextManager["NucleusFile"]):
    """Writes the table of nuclei as they come, atomically, in flat memory.

    Parameters
    ----------
    path : Path
        Where it is once all are written; with an error it is not touched. The suffix
        `.parquet` makes it Parquet, any other CSV.
    calibration : Calibration or None
        The model's.
    """

    def __init__(self, path: Path, calibration: Calibration | None) -> None:
        self.path = path
        self._calibration = calibration

    def __enter__(self) -> "NucleusFile":
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            writer = RowWriter(temporary, NUCLEUS_TABLE, _GROUP_ROWS)
            self._writer = stack.enter_context(writer)
            # Open until it is left, unless opening itself failed.
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def add(self, found: FoundNuclei) -> None:
        """Write the nuclei of further images."""
        for table in found.make_tables(self._calibration):
            self._writer.add(table)
