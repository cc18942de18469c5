"""Values at given ranks of an array, without sorting all of it."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# OpenCV returns counts as float32, which holds integers up to here.
_EXACT_COUNTS = 2**24

# A histogram of 65,536 bins costs 0.2 ms whatever the image; below this many pixels
# partitioning is faster (0.01 ms against 0.2 at 128x128, 2.2 against 1.4 at 2048x2048).
_MANY_PIXELS = 2**18


def is_counted(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype has few enough values for a histogram: up to 16-bit integers."""
    return dtype.kind in "biu" and dtype.itemsize <= 2


def count_values(values: NDArray[Any]) -> NDArray[np.int64]:
    """Count each value of an integer dtype.

    Parameters
    ----------
    values : C-contiguous ndarray of bool or an integer dtype of 8 or 16 bits
        In native byte order.

    Returns
    -------
    (256,) or (65536,) int64 ndarray
        Counts from the dtype's smallest value (:func:`smallest_value`) on.
    """
    n_bins = 1 << (8 * values.itemsize)
    bits = values.reshape(1, -1).view(f"u{values.itemsize}")
    counts = np.zeros(n_bins, dtype=np.int64)
    for start in range(0, bits.size, _EXACT_COUNTS):
        part = bits[:, start : start + _EXACT_COUNTS]
        found = cv2.calcHist([part], [0], None, [n_bins], [0, n_bins])
        # Exact, see above.
        np.add(counts, found.ravel(), out=counts, casting="unsafe")
    # The bits of negative numbers come after those of positive ones.
    return np.roll(counts, n_bins // 2) if values.dtype.kind == "i" else counts


def smallest_value(dtype: np.dtype[Any]) -> int:
    """Smallest value of a dtype that :func:`count_values` takes."""
    return int(np.iinfo(dtype.name).min) if dtype.kind == "i" else 0


def find_in_counts(counts: NDArray[np.int64], ranks: Sequence[int]) -> list[int]:
    """Find the bins that hold the values of some ranks, from 0 on."""
    # Called as methods: np.cumsum and its like take longer to call than to compute.
    found = counts.cumsum().searchsorted(ranks, side="right")
    return [int(bin_) for bin_ in found]


def find_in_order(
    values: NDArray[Any], ranks: tuple[int, int, int, int]
) -> list[float]:
    """Find the values at four ranks.

    Parameters
    ----------
    values : C-contiguous ndarray, native byte order
        8- or 16-bit integers, or float32 without NaN.
    ranks : (int, int, int, int)
        From 0; ascending, the second at most one above the first, and the fourth at
        most one above the third.

    Returns
    -------
    list of float
        As many.
    """
    if is_counted(values.dtype) and (
        values.itemsize == 1 or values.size > _MANY_PIXELS
    ):
        offset = smallest_value(values.dtype)
        bins = find_in_counts(count_values(values), ranks)
        return [float(bin_ + offset) for bin_ in bins]
    ordered = values.flatten()
    # One rank at a time, in what is left below the last one: only so NumPy takes its
    # vectorised way, ten times as fast as all of them in one call.
    bottom, above_bottom, top, above_top = ranks
    ordered.partition(top)
    highest = ordered[top]
    above_highest = highest if above_top == top else ordered[above_top:].min()
    if bottom < top:
        ordered = ordered[:top]
        ordered.partition(bottom)
    lowest = ordered[bottom]
    if above_bottom == bottom:
        above_lowest = lowest
    elif above_bottom >= top:
        above_lowest = highest if above_bottom == top else above_highest
    else:
        above_lowest = ordered[above_bottom:].min()
    return [float(lowest), float(above_lowest), float(highest), float(above_highest)]
