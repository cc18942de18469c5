"""Rows of the plan in columns: a million of them without a million objects."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from nucleiseg.shards.entry import Block, Entry

NONE = -1
"""What stands for None in a column."""

ROW = np.dtype(
    [
        ("archive", "<i4"),
        ("shard", "<i4"),
        ("dataset", "<i4"),
        ("start", "<i8"),
        ("stop", "<i8"),
        ("height", "<i8"),
        ("width", "<i8"),
        ("reason", "<i4"),
        ("top", "<i8"),
        ("left", "<i8"),
        ("bottom", "<i8"),
        ("right", "<i8"),
    ]
)
"""Columns; `dataset` and `reason` are places in lists of texts."""

Rows = NDArray[np.void]
"""Array of `ROW`."""

_CORNERS = ["top", "left", "bottom", "right"]

# Rows that iteration turns into objects at a time.
_STEP = 4096


class Entries(Sequence[Entry]):
    """Rows of a plan; an `Entry` is made of one when it is asked for.

    Parameters
    ----------
    rows : (N,) ndarray of ROW
    datasets, reasons : sequence of str
        Texts that the rows point at.
    """

    def __init__(
        self, rows: Rows, datasets: Sequence[str], reasons: Sequence[str]
    ) -> None:
        self.rows = rows.view()
        self.rows.flags.writeable = False
        self.datasets = tuple(datasets)
        self.reasons = tuple(reasons)

    @classmethod
    def collect(cls, entries: Iterable[Entry]) -> "Entries":
        """Make columns of entries."""
        datasets, reasons = Texts(), Texts()
        values = [
            (
                entry.archive,
                NONE if entry.shard is None else entry.shard,
                datasets.place(entry.dataset),
                entry.start,
                entry.stop,
                entry.height,
                entry.width,
                reasons.place(entry.reason),
                *_corners(entry.block),
            )
            for entry in entries
        ]
        return cls(np.array(values, dtype=ROW), datasets.texts, reasons.texts)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Entry: ...

    @overload
    def __getitem__(self, place: slice) -> "Entries": ...

    def __getitem__(self, place: int | slice) -> "Entry | Entries":
        if isinstance(place, slice):
            return self.select(place)
        return self._entry(self.rows[place].item())

    def __iter__(self) -> Iterator[Entry]:
        for start in range(0, len(self.rows), _STEP):
            yield from map(self._entry, self.rows[start : start + _STEP].tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        if len(self) != len(other):
            return False
        if isinstance(other, Entries) and self._texts == other._texts:
            return bool(np.array_equal(self.rows, other.rows))
        return all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, itertools.islice(self, 3)))
        more = f", ... {len(self)} in all" if len(self) > 3 else ""
        return f"Entries([{shown}{more}])"

    def select(self, which: slice | NDArray[Any]) -> "Entries":
        """Take some of the rows, by slice, mask or places."""
        return Entries(self.rows[which], self.datasets, self.reasons)

    @property
    def is_block(self) -> NDArray[np.bool_]:
        """Which rows are blocks of large images, (N,)."""
        return np.asarray(self.rows["top"] != NONE)

    @property
    def n_new_images(self) -> NDArray[np.int64]:
        """Images that no row before has a part of, (N,); see `Entry`."""
        rows = self.rows
        n_images: NDArray[np.int64] = rows["stop"] - rows["start"]
        is_later_block = self.is_block & ((rows["top"] != 0) | (rows["left"] != 0))
        return np.where(is_later_block, 0, n_images)

    @property
    def n_images(self) -> int:
        """Images in all rows; a large image counts with its first block."""
        return int(self.n_new_images.sum())

    @property
    def _texts(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.datasets, self.reasons

    def _entry(self, row: tuple[int, ...]) -> Entry:
        archive, shard, dataset, start, stop, height, width, reason, *corners = row
        return Entry(
            archive,
            None if shard == NONE else shard,
            None if dataset == NONE else self.datasets[dataset],
            start,
            stop,
            height,
            width,
            None if reason == NONE else self.reasons[reason],
            None if corners[0] == NONE else Block(*corners),
        )


def make_rows(number: int) -> Rows:
    """Make rows of zeros that are shards of whole images."""
    rows = np.zeros(number, dtype=ROW)
    for name in ("reason", *_CORNERS):
        rows[name] = NONE
    return rows


def split_rows(rows: Rows, corners: NDArray[np.int64]) -> Rows:
    """Put, for each row of one image, a row for each block of it.

    Parameters
    ----------
    rows : (N,) ndarray of ROW
    corners : (B, 4) int64 ndarray
        Top, left, bottom and right of each block.

    Returns
    -------
    (N * B,) ndarray of ROW
    """
    split = np.repeat(rows, len(corners))
    for name, values in zip(_CORNERS, corners.T, strict=True):
        split[name] = np.tile(values, len(rows))
    return split


class Texts:
    """Different texts in the order in which they came first."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def place(self, text: str | None) -> int:
        """Place of a text, which is added where it is new; NONE for None."""
        if text is None:
            return NONE
        return self._places.setdefault(text, len(self._places))

    @property
    def texts(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(self._places)


def _corners(block: Block | None) -> tuple[int, int, int, int]:
    if block is None:
        return NONE, NONE, NONE, NONE
    return block.top, block.left, block.bottom, block.right
