"""Seeded watershed: each pixel of a mask to the seed that the way up leads to.

Every pixel points to the highest of its eight neighbours, and following the pointers
ends in a seed, or in a peak that no seed marks. The area that leads to such a peak is
joined, as water would, to the area beyond its highest pass. The outcome is a minimum
spanning forest of the pixels, rooted in the seeds, whose edges weigh as their lower,
then as their higher end; it takes a few passes over arrays and no queue of pixels.

Notes
-----
Measured on maps made of true labels with blur and noise, 128 to 1272 px: AP at IoU of
.50 to .90 is that of scikit-image's watershed to four digits, in a half to a sixth of
its time. Nearest seeds (OpenCV's distance transform with labels) are no faster and
lose up to .017, OpenCV's watershed up to .08.

Cousty et al., Watershed cuts: minimum spanning forests and the drop of water
principle, IEEE TPAMI 31 (2009).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from nucleiseg.instances.unions import find_roots

Indices = NDArray[np.int64]

_DIRECTION_BITS = 3
_DIRECTIONS = 7


def flood(
    heights: NDArray[np.float32], mask: NDArray[np.bool_], labels: NDArray[np.int32]
) -> None:
    """Divide a mask among seeds, in place.

    Parameters
    ----------
    heights : (H, W) float32 ndarray
        High in the middle of each nucleus; finite, what is below 0 is taken for 0.
    mask : (H, W) bool ndarray
        What is divided, connected through eight neighbours.
    labels : (H, W) int32 ndarray
        Within the mask: number of the seed from 1 on, 0 elsewhere. Afterwards the
        number of each pixel's seed; 0 stays what is connected to no seed. Where
        heights are equal, a pixel goes to the nearer seed, about.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    field = _Field.make(heights[box], mask[box], labels[box])
    targets = _follow(field, _climb(field))
    field.labels[field.pixels] = field.labels[targets]
    is_left = field.labels[field.pixels] == 0
    if is_left.any():
        _join_basins(field, is_left, targets)
    labels[box] = field.labels.reshape(field.shape)[1:-1, 1:-1]


@dataclass(frozen=True, eq=False)
class _Field:
    """Flat arrays with a margin of one pixel, so that all pixels have neighbours."""

    shape: tuple[int, int]
    """Rows and columns, with the margin."""
    heights: NDArray[np.float32]
    """Negative outside the mask."""
    labels: NDArray[np.int32]
    """Seeds, then whatever else is known."""
    pixels: Indices
    """(n,) places of the mask without a seed."""
    offsets: Indices
    """(8,) from a place to those of its neighbours."""

    @classmethod
    def make(
        cls,
        heights: NDArray[np.float32],
        mask: NDArray[np.bool_],
        seeds: NDArray[np.int32],
    ) -> "_Field":
        n_rows, width = mask.shape[0] + 2, mask.shape[1] + 2
        inner = (slice(1, -1), slice(1, -1))
        # As bits this is below all heights. A height of -0.0 becomes 0.0.
        padded = np.full((n_rows, width), -1.0, dtype=np.float32)
        np.maximum(heights, np.float32(0), out=padded[inner], where=mask)
        labels = np.zeros((n_rows, width), dtype=np.int32)
        labels[inner] = seeds
        is_free = np.zeros((n_rows, width), dtype=np.bool_)
        np.logical_and(mask, seeds == 0, out=is_free[inner])
        around = [-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1]
        return cls(
            (n_rows, width),
            padded.ravel(),
            labels.ravel(),
            np.flatnonzero(is_free),
            np.array(around, dtype=np.int64),
        )


def _climb(field: _Field) -> Indices:
    """Find each pixel's highest neighbour, or the pixel itself where it is a peak."""
    # Floats from 0 on are ordered as their bits are; with the number of the neighbour
    # behind them the largest says which it is, in a third of the time of choosing.
    bits = field.heights.view(np.int32)
    highest = np.full(field.pixels.shape, np.iinfo(np.int64).min)
    for direction, offset in enumerate(field.offsets):
        keys = bits[field.pixels + offset].astype(np.int64)
        keys <<= _DIRECTION_BITS
        keys |= direction
        np.maximum(highest, keys, out=highest)
    targets: Indices = field.pixels + field.offsets[highest & _DIRECTIONS]
    highest >>= _DIRECTION_BITS
    own = bits[field.pixels]
    is_peak = highest < own
    targets[is_peak] = field.pixels[is_peak]
    is_level = highest == own
    if is_level.any():
        targets[is_level] = _approach(field, field.pixels[is_level])
    return targets


def _approach(field: _Field, pixels: Indices) -> Indices:
    """Find which neighbour of the same height is nearest to a seed, or none nearer."""
    ground = (field.labels.reshape(field.shape) == 0).astype(np.uint8)
    distances = cv2.distanceTransform(ground, cv2.DIST_L2, cv2.DIST_MASK_5).ravel()
    own = field.heights[pixels]
    targets = pixels.copy()
    nearest = distances[pixels]
    for offset in field.offsets:
        places = pixels + offset
        values = distances[places]
        is_nearer = (values < nearest) & (field.heights[places] == own)
        np.copyto(nearest, values, where=is_nearer)
        np.copyto(targets, places, where=is_nearer)
    return targets


def _follow(field: _Field, targets: Indices) -> Indices:
    """Follow the pointers of all pixels to their ends, seeds or peaks."""
    numbers = np.full(field.heights.shape, -1, dtype=np.int32)
    numbers[field.pixels] = np.arange(len(field.pixels))
    following = numbers[targets].astype(np.int64)
    is_last = following < 0
    following[is_last] = np.flatnonzero(is_last)
    while True:
        further = following[following]
        if np.array_equal(further, following):
            return targets[following]
        following = further


def _join_basins(field: _Field, is_left: NDArray[np.bool_], targets: Indices) -> None:
    """Join the basins of peaks without a seed to others, over their highest passes."""
    pixels = field.pixels[is_left]
    peaks, basins = np.unique(targets[is_left], return_inverse=True)
    # Nodes: the labels, then the basins.
    nodes = field.labels
    n_labels = int(nodes.max()) + 1
    nodes[pixels] = n_labels + basins
    passes = []
    for offset in field.offsets:
        places = pixels + offset
        chosen = (nodes[places] > 0) & (nodes[places] != nodes[pixels])
        here, there = pixels[chosen], places[chosen]
        pair = field.heights[here], field.heights[there]
        passes.append((nodes[here], nodes[there], np.minimum(*pair), np.maximum(*pair)))
    first, second, lower, higher = map(np.concatenate, zip(*passes, strict=True))
    order = np.lexsort((-higher, -lower))
    first, second = first[order], second[order]
    names = np.arange(n_labels + len(peaks))
    while True:
        first, second = names[first], names[second]
        is_open = (first >= n_labels) & (first != second)
        if not is_open.any():
            break
        first, second = first[is_open], second[is_open]
        # The first of each is its highest pass.
        _, best = np.unique(first, return_index=True)
        names = find_roots(len(names), first[best], second[best])[names]
    found = names[nodes[pixels]]
    nodes[pixels] = np.where(found < n_labels, found, 0)
