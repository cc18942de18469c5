"""The range of an image far larger than memory, from its pieces."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nucleiseg.config import PreprocessConfig
from nucleiseg.errors import ArchiveError
from nucleiseg.preprocess.normalisation import as_float32
from nucleiseg.preprocess.order import (
    count_values,
    find_in_counts,
    is_counted,
    smallest_value,
)
from nucleiseg.preprocess.ranges import (
    UNCHANGED,
    Range,
    Ranks,
    make_range,
    refuse_empty,
    refuse_not_finite,
)

# Pixels converted at once, whatever the size of a piece.
_PIXELS_AT_ONCE = 2**20

# The upper halves of float32 bits in the order of the numbers: the bits of negative
# numbers count downwards.
_ASCENDING = np.concatenate([np.arange(65535, 32767, -1), np.arange(32768)])


class RangeFinder:
    """Finds the :class:`Range` of an image from its pieces, in any order.

    The same range, bit by bit, as :func:`find_range` of the whole image, in at most
    2 MB and what converting 2^20 pixels at once takes. Integers of up to 16 bits are
    counted in one pass. Other values are counted by the upper half of their float32
    bits, and then, in a second pass, by the lower half where a percentile lies::

        finder = RangeFinder(dtype, settings)
        for piece in pieces:
            finder.add(piece)
        if finder.needs_second_pass:
            finder.second_pass()
            for piece in pieces:
                finder.add(piece)
        found = finder.find()

    For one thread at a time.

    Parameters
    ----------
    dtype : dtype
        Of the image.
    settings : PreprocessConfig
    """

    def __init__(self, dtype: DTypeLike, settings: PreprocessConfig) -> None:
        self._dtype = np.dtype(dtype)
        self._settings = settings
        self._is_counted = is_counted(self._dtype)
        n_bins = 1 << (8 * self._dtype.itemsize) if self._is_counted else 65536
        self._counts = np.zeros(n_bins, dtype=np.int64)
        self._n_pixels = 0
        self._extremes: _Extremes | None = None
        self._highest = -np.inf
        self._second: _SecondPass | None = None

    @property
    def n_pixels(self) -> int:
        """Pixels added in the first pass."""
        return self._n_pixels

    @property
    def highest(self) -> float:
        """Largest value, in the image's own dtype: what saturation is judged by.

        Raises
        ------
        ArchiveError
            No pixels were added.
        """
        if not self._n_pixels:
            raise refuse_empty()
        if self._is_counted:
            return self._count_extremes().largest
        return self._highest

    @property
    def needs_second_pass(self) -> bool:
        """Whether all pieces have to be added again, after :meth:`second_pass`."""
        return (
            not self._is_counted
            and self._settings.normalisation == "percentile"
            and self._second is None
            and self._extremes is not None
            and not self._extremes.are_equal
        )

    def second_pass(self) -> None:
        """Begin the second pass: from now on, :meth:`add` takes the pieces again.

        Raises
        ------
        ValueError
            None is needed.
        """
        if not self.needs_second_pass:
            raise ValueError("no second pass is needed; call find()")
        ranks = Ranks.find(self._n_pixels, self._settings)
        self._second = _SecondPass.of(self._counts, ranks)

    def add(self, piece: NDArray[Any]) -> None:
        """Take the values of a piece of the image, of any shape.

        Raises
        ------
        ArchiveError
            The piece holds NaN or infinite values.
        ValueError
            The piece has another dtype than the image.
        """
        if piece.dtype.newbyteorder("=") != self._dtype.newbyteorder("="):
            raise ValueError(
                f"a piece has dtype {piece.dtype}, and the image {self._dtype}; add "
                "pieces of the same image"
            )
        for part in _cut(piece):
            if self._second is not None:
                self._second.add(as_float32(part))
                continue
            if self._is_counted:
                native = self._dtype.newbyteorder("=")
                self._counts += count_values(np.ascontiguousarray(part, dtype=native))
            else:
                self._add_floats(part)
            self._n_pixels += part.size

    def _add_floats(self, part: NDArray[Any]) -> None:
        values = as_float32(part)
        found = _Extremes(float(values.min()), float(values.max()))
        if not found.are_finite:
            raise refuse_not_finite()
        self._highest = max(self._highest, float(part.max()))
        self._extremes = found.join(self._extremes)
        if self._settings.normalisation == "percentile":
            upper, _ = _split_bits(values)
            self._counts += count_values(upper)

    def find(self) -> Range:
        """Find the range of all that was added.

        Raises
        ------
        ArchiveError
            As :func:`normalise` of the whole image; or the second pass saw other
            values than the first.
        ValueError
            The second pass is missing.
        """
        if not self._n_pixels:
            raise refuse_empty()
        if self._settings.normalisation == "none":
            return UNCHANGED
        if self.needs_second_pass:
            raise ValueError("call second_pass() and add all pieces once more")
        extremes = self._extremes or self._count_extremes()
        if extremes.are_equal:
            return make_range(extremes.smallest, extremes.largest)
        ranks = Ranks.find(self._n_pixels, self._settings)
        if self._second is None:
            low, high = ranks.interpolate(self._find_counted(*ranks.indices))
        else:
            low, high = ranks.interpolate(self._second.find(self._n_pixels))
        if high <= low:
            # The rule of find_range.
            low, high = extremes.smallest, extremes.largest
        return make_range(low, high)

    def _count_extremes(self) -> "_Extremes":
        return _Extremes(*self._find_counted(0, self._n_pixels - 1))

    def _find_counted(self, *ranks: int) -> list[float]:
        offset = smallest_value(self._dtype)
        return [float(bin_ + offset) for bin_ in find_in_counts(self._counts, ranks)]


def _cut(piece: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Cut a piece into parts small enough to convert at once."""
    if piece.size <= _PIXELS_AT_ONCE:
        if piece.size:
            yield piece
        return
    n_rows = len(piece)
    step = max(1, n_rows * _PIXELS_AT_ONCE // piece.size)
    if n_rows == 1:
        # One long row, or a stack of one: cut along the next axis.
        yield from _cut(piece[0])
        return
    for start in range(0, n_rows, step):
        yield from _cut(piece[start : start + step])


def _split_bits(
    values: NDArray[np.float32],
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Split the bits of float32 values into their upper and their lower half."""
    bits = values.view(np.uint32)
    return (bits >> np.uint32(16)).astype(np.uint16), bits.astype(np.uint16)


@dataclass(frozen=True)
class _Extremes:
    """Smallest and largest value, as float32 or exact integers."""

    smallest: float
    largest: float

    @property
    def are_finite(self) -> bool:
        return bool(np.isfinite(self.smallest) and np.isfinite(self.largest))

    @property
    def are_equal(self) -> bool:
        return self.smallest == self.largest

    def join(self, other: "_Extremes | None") -> "_Extremes":
        if other is None:
            return self
        return _Extremes(
            min(self.smallest, other.smallest), max(self.largest, other.largest)
        )


@dataclass
class _SecondPass:
    """Counts by the lower half of the bits, in the bins where the ranks lie."""

    places: list[tuple[int, int]]
    """Upper half of the bits and rank within that bin, for each of the ranks."""
    expected: dict[int, int]
    """Values in each bin, counted in the first pass."""
    counts: dict[int, NDArray[np.int64]]
    """Counts by the lower half, for each bin."""
    n_pixels: int = field(default=0)

    @classmethod
    def of(cls, counts: NDArray[np.int64], ranks: Ranks) -> "_SecondPass":
        ascending = counts[_ASCENDING]
        before = np.cumsum(ascending) - ascending
        bins = find_in_counts(ascending, ranks.indices)
        places = [
            (int(_ASCENDING[bin_]), rank - int(before[bin_]))
            for bin_, rank in zip(bins, ranks.indices, strict=True)
        ]
        uppers = {upper for upper, _ in places}
        return cls(
            places,
            {upper: int(counts[upper]) for upper in uppers},
            {upper: np.zeros(65536, dtype=np.int64) for upper in uppers},
        )

    def add(self, values: NDArray[np.float32]) -> None:
        self.n_pixels += values.size
        upper, lower = _split_bits(values)
        for wanted, counts in self.counts.items():
            chosen = lower[upper == wanted]
            if chosen.size:
                counts += count_values(chosen)

    def find(self, n_pixels: int) -> list[float]:
        found = {upper: int(counts.sum()) for upper, counts in self.counts.items()}
        if self.n_pixels != n_pixels or found != self.expected:
            raise ArchiveError(
                f"image's second pass over {self.n_pixels} pixels saw other values "
                f"than the first over {n_pixels}; read the same pieces twice, and "
                "let nobody write the archive meanwhile"
            )
        return [self._find_one(upper, rank) for upper, rank in self.places]

    def _find_one(self, upper: int, rank: int) -> float:
        counts = self.counts[upper]
        if upper >= 32768:
            # Negative: the larger the bits, the smaller the number.
            (position,) = find_in_counts(counts[::-1], [rank])
            position = 65535 - position
        else:
            (position,) = find_in_counts(counts, [rank])
        bits = np.array([upper << 16 | position], dtype=np.uint32)
        return float(bits.view(np.float32)[0])
