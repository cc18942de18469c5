"""Figures as functions of sums over images, and their bootstrap intervals.

Row 0 of a sum is that over the images themselves, every further row that over a
resample of them: one formula gives the figure and its samples.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Name = TypeVar("Name", bound=Hashable)

# Draws of images that are held at once while resampling: 16 MB.
_DRAWS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % bootstrap interval over images.

    All three are NaN where the figure is undefined; `low` and `high` also where no
    interval was asked for or there are fewer than two images.
    """

    value: float
    low: float
    high: float


def resample_sums(
    columns: dict[Name, FloatArray], rng: np.random.Generator | None, n_resamples: int
) -> dict[Name, FloatArray]:
    """Sum columns over the images (row 0) and over resamples of them (further rows).

    Parameters
    ----------
    columns : dict of (n, k) float64 ndarray
        Terms of each image, by name.

    Returns
    -------
    dict of (1 + n_resamples, k) float64 ndarray
        One row only without `rng`, or with one image, of which there is no resample.
    """
    terms = np.concatenate(list(columns.values()), axis=1)
    n = len(terms)
    if n == 0:
        raise ValueError("no image to score")
    sums = [terms.sum(axis=0, keepdims=True)]
    if rng is not None and n > 1:
        at_once = max(1, _DRAWS_AT_ONCE // n)
        for start in range(0, n_resamples, at_once):
            rows = min(at_once, n_resamples - start)
            drawn = rng.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
            times = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
            sums.append(times.astype(np.float64) @ terms)
    ends = np.cumsum([column.shape[1] for column in columns.values()])[:-1]
    split = np.split(np.concatenate(sums), ends, axis=1)
    return dict(zip(columns, split, strict=True))


def ratio(
    numerator: NDArray[np.float64 | np.int64],
    denominator: NDArray[np.float64 | np.int64],
    *,
    undefined: float = np.nan,
) -> FloatArray:
    """Divide elementwise; x / 0 gives `undefined`."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    quotient = np.full(shape, undefined, np.float64)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def estimate(samples: FloatArray) -> Estimate:
    """Take row 0 as the figure and the rest as its bootstrap samples.

    The interval is the percentile interval (Efron and Tibshirani, An Introduction to
    the Bootstrap, 1993, chapter 13); resamples in which it is undefined are left out.
    """
    value, resampled = float(samples[0]), samples[1:][np.isfinite(samples[1:])]
    if not np.isfinite(value) or resampled.size == 0:
        return Estimate(value, np.nan, np.nan)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def estimate_columns(samples: FloatArray) -> tuple[Estimate, ...]:
    """Make one estimate of each column."""
    return tuple(estimate(column) for column in samples.T)
