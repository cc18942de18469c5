"""One block of an image too large to be labelled in one piece.

A nucleus that touches an edge shared with another block may go on there; it stays
open, and the block keeps which pixels along the edge are its. All others are
finished, and only their sums are kept.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import InstancesConfig
from nucleiseg.instances.counting import find_foreground
from nucleiseg.instances.labelling import label_mask, measure_areas
from nucleiseg.instances.maps import split_maps
from nucleiseg.instances.saturation import count_saturated
from nucleiseg.instances.storage import pack, unpack
from nucleiseg.instances.summary import Tally
from nucleiseg.instances.sums import sum_by_label

Core = tuple[slice, slice]
"""Rows and columns of a block within its image, `slice(start, stop)` each."""


@dataclass(frozen=True, eq=False)
class BlockSummary:
    """What joining needs of one block."""

    shape: tuple[int, int]
    """Rows and columns."""
    threshold: float
    """As the block was labelled with."""
    min_area_px: int
    """As the finished nuclei were counted with."""
    n_saturated: int
    """Saturated pixels."""
    finished: Tally
    """Nuclei that end within the block and are large enough."""
    areas: NDArray[np.int64]
    """(n,) pixels of each open nucleus within the block."""
    probability_sums: NDArray[np.int64]
    """(n,) sum of each open nucleus' probabilities, in units of 2^-30."""
    at_border: NDArray[np.bool_]
    """(n,) whether each open nucleus touches the image's edge in this block."""
    top: NDArray[np.int32]
    """Open nuclei along the first row: 0 = background, 1…n; of length 0 where the
    image ends."""
    bottom: NDArray[np.int32]
    """Along the last row."""
    left: NDArray[np.int32]
    """Along the first column."""
    right: NDArray[np.int32]
    """Along the last column."""

    @property
    def n_open(self) -> int:
        """Open nuclei."""
        return len(self.areas)

    def to_bytes(self) -> bytes:
        """Pack into bytes, the same for the same block on every machine."""
        numbers = (
            *self.shape,
            self.min_area_px,
            self.n_saturated,
            self.finished.count,
            self.finished.n_foreground,
            self.finished.border_count,
            self.finished.probability_sum,
        )
        wide = np.stack([self.areas, self.probability_sums])
        sides = (self.top, self.bottom, self.left, self.right)
        return pack(self.threshold, numbers, wide, self.at_border, sides)

    @classmethod
    def from_bytes(cls, data: bytes) -> "BlockSummary":
        """Unpack what :meth:`to_bytes` packed.

        Raises
        ------
        ValueError
            The bytes are damaged, or another version's.
        """
        threshold, numbers, wide, at_border, sides = unpack(data)
        height, width, min_area_px, n_saturated, *finished = numbers
        return cls(
            (height, width),
            threshold,
            min_area_px,
            n_saturated,
            Tally(*finished),
            wide[0],
            wide[1],
            at_border,
            *sides,
        )


def summarise_block(
    image_part: NDArray[Any],
    maps_part: NDArray[np.float32],
    core: Core,
    image_shape: tuple[int, int],
    settings: InstancesConfig,
    *,
    limit: float | None,
) -> BlockSummary:
    """Label one block of an image and keep what joining needs.

    Parameters
    ----------
    image_part : (h, w) ndarray
        The block as stored, without context.
    maps_part : (h, w, C) float32 ndarray, in [0, 1]
        The network's output for it: foreground probability, and marker map where
        C = 2.
    core : (slice, slice)
        Its rows and columns within the image.
    image_shape : (int, int)
        Rows and columns of the whole image.
    settings : InstancesConfig
        Threshold and smallest area, the same for all blocks.
    limit : float or None
        Value of a saturated pixel, :func:`saturation_limit` of the whole image; may
        be None for integers.

    Returns
    -------
    BlockSummary

    Raises
    ------
    ValueError
        "not finite": a probability is; or the block does not fit the image.
    """
    probability_part, _ = split_maps(maps_part)
    _check(image_part, probability_part, core, image_shape, limit)
    rows, columns = core
    # Top, bottom, left, right: whether another block lies beyond.
    inner = (
        rows.start > 0,
        rows.stop < image_shape[0],
        columns.start > 0,
        columns.stop < image_shape[1],
    )
    mask = find_foreground(probability_part, settings)
    if mask is None:
        mask = np.zeros(probability_part.shape, dtype=np.bool_)
    n_labels, labels = label_mask(mask)
    sides = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    is_open = _find_touching(sides, inner, n_labels)
    at_border = _find_touching(sides, [not is_inner for is_inner in inner], n_labels)
    areas = measure_areas(labels, n_labels)
    sums = sum_by_label(probability_part, labels, n_labels, settings.threshold)

    keep = ~is_open & (areas >= settings.min_area_px)
    keep[0] = False
    finished = Tally(
        count=int(np.count_nonzero(keep)),
        n_foreground=int(areas[keep].sum()),
        border_count=int(np.count_nonzero(at_border & keep)),
        probability_sum=int(sums[keep].sum()),
    )
    numbers = np.zeros(n_labels, dtype=np.int32)
    numbers[is_open] = np.arange(1, np.count_nonzero(is_open) + 1)
    nothing = np.zeros(0, dtype=np.int32)
    return BlockSummary(
        probability_part.shape,
        settings.threshold,
        settings.min_area_px,
        count_saturated(image_part, limit),
        finished,
        areas[is_open],
        sums[is_open],
        at_border[is_open],
        *(
            numbers[side] if is_inner else nothing
            for side, is_inner in zip(sides, inner, strict=True)
        ),
    )


def _find_touching(
    sides: tuple[NDArray[np.int32], ...], chosen: Any, n_labels: int
) -> NDArray[np.bool_]:
    """Find the labels, without the background, that touch one of the chosen sides."""
    touching = np.zeros(n_labels, dtype=np.bool_)
    for side, is_chosen in zip(sides, chosen, strict=True):
        if is_chosen:
            touching[side] = True
    touching[0] = False
    return touching


def _check(
    image_part: NDArray[Any],
    probability_part: NDArray[np.float32],
    core: Core,
    image_shape: tuple[int, int],
    limit: float | None,
) -> None:
    rows, columns = core
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    where = f"block of rows {rows.start}:{rows.stop}, columns"
    where = f"{where} {columns.start}:{columns.stop}"
    if not (
        0 <= rows.start < rows.stop <= image_shape[0]
        and 0 <= columns.start < columns.stop <= image_shape[1]
    ):
        raise ValueError(
            f"{where} does not lie in an image of {image_shape}; cut blocks within it"
        )
    if image_part.shape != shape or probability_part.shape != shape:
        raise ValueError(
            f"{where} has pixels of shape {image_part.shape} and probabilities of "
            f"{probability_part.shape}, expected {shape}; leave the context out"
        )
    if limit is None and image_part.dtype.kind not in "iu":
        raise ValueError(
            f"{where} of a {image_part.dtype} image needs the saturation limit of the "
            "whole image; pass limit=saturation_limit(dtype, highest)"
        )
