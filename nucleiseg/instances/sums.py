"""Sums of probabilities that do not depend on the order of the pixels.

A float32 of at least 2^-7 is a multiple of 2^-30, so whatever lies above a threshold
of at least 2^-7 is an integer in units of 2^-30. Float64 holds integers up to 2^53: a
sum of 2^23 probabilities is exact, in any order, and sums of sums are made in
integers. Below such a threshold each probability is first rounded to the unit, which
changes it by at most 2^-31; tables show four decimals.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_UNIT_BITS = 30
UNIT = 2.0**-_UNIT_BITS
"""What the sums count."""

_LEAST_EXACT = 2.0**-7

_ROUNDER = 1.5 * 2.0**22

# Far below 2^23: sums are exact, and temporary arrays fit into the cache.
_PIXELS_AT_ONCE = 2**18


def sum_probabilities(
    probability: NDArray[np.float32],
    mask: NDArray[np.bool_],
    threshold: float,
) -> int:
    """Sum the probabilities within a mask.

    Parameters
    ----------
    probability : (H, W) float32 ndarray, in [0, 1]
        C-contiguous.
    mask : (H, W) bool ndarray
        C-contiguous; only pixels above the threshold.
    threshold : float

    Returns
    -------
    int
        In units of 2^-30, exact.

    Raises
    ------
    ValueError
        A probability is infinite.
    """
    total = 0
    flat, chosen = probability.ravel(), mask.ravel()
    for start in range(0, flat.size, _PIXELS_AT_ONCE):
        stop = start + _PIXELS_AT_ONCE
        values: NDArray[Any] = np.multiply(flat[start:stop], chosen[start:stop])
        if threshold < _LEAST_EXACT:
            values = _round_to_unit(values)
        part = float(np.add.reduce(values, dtype=np.float64))
        if not np.isfinite(part):
            raise ValueError("not finite")
        total += int(part / UNIT)
    return total


def sum_by_label(
    probability: NDArray[np.float32],
    labels: NDArray[np.int32],
    n_labels: int,
    threshold: float,
) -> NDArray[np.int64]:
    """Sum the probabilities of each label; 0 for the background.

    Parameters
    ----------
    probability : (H, W) float32 ndarray, in [0, 1]
        C-contiguous.
    labels : (H, W) int32 ndarray
        C-contiguous; 0 = background, 1…n_labels - 1 = labels.
    n_labels : int
    threshold : float
        Below all labelled pixels.

    Returns
    -------
    (n_labels,) int64 ndarray
        In units of 2^-30, exact.
    """
    sums = np.zeros(n_labels, dtype=np.int64)
    flat, numbers = probability.ravel(), labels.ravel()
    for start in range(0, flat.size, _PIXELS_AT_ONCE):
        stop = start + _PIXELS_AT_ONCE
        values: NDArray[Any] = flat[start:stop]
        if threshold < _LEAST_EXACT:
            values = _round_to_unit(values)
        part = np.bincount(numbers[start:stop], weights=values, minlength=n_labels)
        # The background was never checked to be finite.
        part[0] = 0
        sums += (part / UNIT).astype(np.int64)
    return sums


def mean_probability(total: int, n_pixels: int) -> float:
    """Mean of so many probabilities from their sum in units, rounded once."""
    return total / (n_pixels << _UNIT_BITS)


def _round_to_unit(values: NDArray[Any]) -> NDArray[np.float64]:
    # Float64 between 2^22 and 2^23 are multiples of 2^-30: adding rounds to them.
    rounded = values + np.float64(_ROUNDER)
    rounded -= _ROUNDER
    return rounded
