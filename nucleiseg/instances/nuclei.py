"""What is known of each nucleus by itself, in sums that add up.

Area and position are sums over a nucleus' pixels, and so is its score: integers all of
them. A nucleus that lies in several blocks of an image is the sum of its parts, and its
row in the table the same however the image was cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.instances.maps import split_maps
from nucleiseg.instances.scoring import find_shares, sum_scores
from nucleiseg.quality import Calibration

Counts = NDArray[np.int64]

_NAMES = ("areas", "row_sums", "column_sums", "score_sums", "at_border")
_RECORD = np.dtype(list(zip(_NAMES, ["<i8", "<i8", "<i8", "<i8", "?"], strict=True)))

# Far below 2^53 even for the sum of as many positions: each is exact as a float64.
_PIXELS_AT_ONCE = 2**18


@dataclass(frozen=True, eq=False)
class Nuclei:
    """The nuclei of an image, of a block of one, or of several images; in order."""

    areas: Counts
    """(n,) pixels of each, within the block where it is one."""
    row_sums: Counts
    """(n,) sum of its pixels' rows in the image, from 0."""
    column_sums: Counts
    """(n,) sum of its pixels' columns in the image, from 0."""
    score_sums: Counts
    """(n,) sum of what its score is the mean of, in units of 2^-30 (see `sums`); 0
    without a calibration."""
    at_border: NDArray[np.bool_]
    """(n,) whether it touches the image's edge."""

    def __len__(self) -> int:
        return len(self.areas)

    @property
    def sums(self) -> tuple[Counts, Counts, Counts, Counts]:
        """What adds up where a nucleus has several parts."""
        return self.areas, self.row_sums, self.column_sums, self.score_sums

    def find_centroids(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Find the centre of each nucleus: the mean position of its pixels.

        Returns
        -------
        y, x : (n,) float64 ndarray
            In pixels. As scikit-image's `regionprops` has it, the centre of the first
            pixel of the first row is (0, 0), and the image begins at -0.5.
        """
        return self.row_sums / self.areas, self.column_sums / self.areas

    def find_shares(self, calibration: Calibration) -> NDArray[np.float64]:
        """Find how often a nucleus like each of these is right, (n,) in [0, 1]."""
        return find_shares(self.score_sums, self.areas, calibration)

    def to_bytes(self) -> bytes:
        """Pack into bytes: 33 for each nucleus, those of several images in a row."""
        records = np.empty(len(self), dtype=_RECORD)
        for name in _NAMES:
            records[name] = getattr(self, name)
        return records.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Nuclei":
        """Unpack what :meth:`to_bytes` packed.

        Raises
        ------
        ValueError
            The bytes are no whole number of nuclei.
        """
        if len(data) % _RECORD.itemsize:
            raise ValueError(
                f"its nuclei have {len(data)} bytes, expected {_RECORD.itemsize} each"
            )
        records = np.frombuffer(data, dtype=_RECORD)
        return cls(*(np.ascontiguousarray(records[name]) for name in _NAMES))

    @staticmethod
    def count_packed(data: bytes) -> int:
        """Count the nuclei that bytes hold, without unpacking them."""
        return len(data) // _RECORD.itemsize


def measure_nuclei(
    maps: NDArray[np.float32],
    labels: NDArray[np.int32],
    *,
    core: tuple[slice, slice] | None = None,
    image_shape: tuple[int, int] | None = None,
    calibration: Calibration | None = None,
) -> Nuclei:
    """Measure each nucleus of a label image, or its part in a block of one.

    Parameters
    ----------
    maps : (H, W, C) float32 ndarray, in [0, 1]
        The network's output: foreground probability, and marker map where C = 2. Not
        looked at without a calibration.
    labels : (H, W) int32 ndarray
        C-contiguous; 0 = background, 1…n = nuclei, each with at least one pixel.
    core : (slice, slice), optional
        Rows and columns of the block within its image.
    image_shape : (int, int), optional
        Rows and columns of that image.
    calibration : Calibration, optional
        The model's.

    Returns
    -------
    Nuclei
        In the order of the labels.
    """
    n_labels = int(labels.max(initial=0)) + 1
    top, left = (0, 0) if core is None else (core[0].start, core[1].start)
    height, width = image_shape or labels.shape
    areas, row_sums, column_sums = _sum_positions(labels, n_labels)
    score_sums = np.zeros(n_labels, dtype=np.int64)
    if calibration is not None and n_labels > 1:
        score_sums = sum_scores(*split_maps(maps), labels, n_labels)
    at_border = np.zeros(n_labels, dtype=np.bool_)
    sides = (
        (labels[0], top == 0),
        (labels[-1], top + labels.shape[0] == height),
        (labels[:, 0], left == 0),
        (labels[:, -1], left + labels.shape[1] == width),
    )
    for side, is_edge in sides:
        if is_edge:
            at_border[side] = True
    return Nuclei(
        areas[1:],
        row_sums[1:] + top * areas[1:],
        column_sums[1:] + left * areas[1:],
        score_sums[1:],
        at_border[1:],
    )


def join_nuclei(
    parts: Sequence[Nuclei], numbers: Sequence[NDArray[np.unsignedinteger[Any]]]
) -> Nuclei:
    """Join the nuclei of all blocks of an image.

    Parameters
    ----------
    parts : sequence of Nuclei
        Those of each block, in the order of its labels.
    numbers : sequence of (n + 1,) uint32 ndarray
        For each block, from its labels to those of the image: what
        :func:`nucleiseg.instances.number_blocks` gives.

    Returns
    -------
    Nuclei
        In the order of the image's labels.

    Raises
    ------
    ValueError
        The nuclei of a block are not those that the numbers are for.
    """
    n_labels = 1 + max(int(its.max()) for its in numbers)
    sums = np.zeros((4, n_labels), dtype=np.int64)
    at_border = np.zeros(n_labels, dtype=np.bool_)
    for part, its in zip(parts, numbers, strict=True):
        if len(part) != len(its) - 1:
            raise ValueError(
                f"a block has {len(part)} nuclei, and {len(its) - 1} labels"
            )
        for total, values in zip(sums, part.sums, strict=True):
            np.add.at(total, its[1:], values)
        at_border[its[1:][part.at_border]] = True
    # Without the background, and what was too small.
    areas, row_sums, column_sums, score_sums = sums[:, 1:]
    return Nuclei(areas, row_sums, column_sums, score_sums, at_border[1:])


def _sum_positions(
    labels: NDArray[np.int32], n_labels: int
) -> tuple[Counts, Counts, Counts]:
    """Sum up pixels, rows and columns of each label; of the background nothing."""
    areas, row_sums, column_sums = np.zeros((3, n_labels), dtype=np.int64)
    width = labels.shape[1]
    n_rows = max(1, _PIXELS_AT_ONCE // width)
    for top in range(0, len(labels), n_rows):
        flat = labels[top : top + n_rows].ravel()
        # Most pixels are background; and of its place in the strip a pixel's row is
        # the quotient, which saves the slower remainder.
        places = np.flatnonzero(flat)
        numbers = flat[places].astype(np.int64)
        its_areas = np.bincount(numbers, minlength=n_labels)
        rows = np.bincount(numbers, places // width, n_labels).astype(np.int64)
        areas += its_areas
        row_sums += rows + top * its_areas
        column_sums += np.bincount(numbers, places, n_labels).astype(np.int64)
        column_sums -= rows * width
    return areas, row_sums, column_sums
