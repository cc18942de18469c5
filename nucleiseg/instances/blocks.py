"""One block of an image too large to be labelled in one piece.

A nucleus that touches an edge shared with another block may go on there; it stays
open, and the block keeps which pixels along the edge are its, and its seed's. All
others are finished, and only their sums are kept.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import InstancesConfig
from nucleiseg.instances.counting import find_foreground
from nucleiseg.instances.labelling import (
    find_nuclei,
    find_seed_threshold,
    measure_areas,
)
from nucleiseg.instances.maps import split_maps
from nucleiseg.instances.saturation import count_saturated
from nucleiseg.instances.scoring import sum_rights, sum_scores
from nucleiseg.instances.storage import pack, unpack
from nucleiseg.instances.summary import Tally
from nucleiseg.instances.sums import sum_by_label
from nucleiseg.quality import Calibration, Measures, measure_image

Core = tuple[slice, slice]
"""Rows and columns of a block within its image, `slice(start, stop)` each."""


@dataclass(frozen=True, eq=False)
class BlockSummary:
    """What joining needs of one block."""

    shape: tuple[int, int]
    """Rows and columns."""
    threshold: float
    """As the block was labelled with."""
    seed_threshold: float | None
    """As the block was labelled with; None where components are nuclei."""
    min_area_px: int
    """As the finished nuclei were counted with."""
    n_saturated: int
    """Saturated pixels."""
    measures: Measures
    """What speaks for and against the image, of the block by itself."""
    finished: Tally
    """Nuclei that end within the block and are large enough."""
    areas: NDArray[np.int64]
    """(n,) pixels of each open nucleus within the block."""
    probability_sums: NDArray[np.int64]
    """(n,) sum of each open nucleus' probabilities, in units of 2^-30."""
    score_sums: NDArray[np.int64]
    """(n,) sum of what its score is the mean of, likewise; 0 without a calibration."""
    at_border: NDArray[np.bool_]
    """(n,) whether each open nucleus touches the image's edge in this block."""
    is_seeded: NDArray[np.bool_]
    """(n,) whether each open nucleus has a seed in this block; all of them, where
    components are nuclei: then every pixel is seed."""
    top: NDArray[np.int32]
    """Open nuclei along the first row: 0 = background, 1…n where a pixel belongs to
    the seed of a nucleus, -1…-n where to the rest of it; of length 0 where the image
    ends."""
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
            self.finished.right_sum,
        )
        wide = np.stack([self.areas, self.probability_sums, self.score_sums])
        sides = (self.top, self.bottom, self.left, self.right)
        thresholds = (self.threshold, self.seed_threshold)
        flags = np.stack([self.at_border, self.is_seeded])
        return pack(thresholds, numbers, self.measures, wide, flags, sides)

    @classmethod
    def from_bytes(cls, data: bytes) -> "BlockSummary":
        """Unpack what :meth:`to_bytes` packed.

        Raises
        ------
        ValueError
            The bytes are damaged, or another version's.
        """
        thresholds, numbers, measures, wide, flags, sides = unpack(data)
        height, width, min_area_px, n_saturated, *finished = numbers
        return cls(
            (height, width),
            *thresholds,
            min_area_px,
            n_saturated,
            measures,
            Tally(*finished),
            wide[0],
            wide[1],
            wide[2],
            flags[0],
            flags[1],
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
    calibration: Calibration | None = None,
    out: NDArray[np.int32] | None = None,
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
        Method, thresholds and smallest area, the same for all blocks.
    limit : float or None
        Value of a saturated pixel, :func:`saturation_limit` of the whole image; may
        be None for integers.
    calibration : Calibration, optional
        The model's, the same for all blocks.
    out : (h, w) int32 ndarray, optional
        Gets the block's label image: 0 = background and finished nuclei that are too
        small, 1…k = the other finished ones, k + 1…k + n = the open ones, in the order
        of the summary; :func:`number_blocks` has their numbers in the image.

    Returns
    -------
    BlockSummary

    Raises
    ------
    ValueError
        "not finite": a probability is; or the block does not fit the image.
    ConfigError
        The method is `watershed`, and there is no marker map.
    """
    probability_part, marker = split_maps(maps_part)
    _check(image_part, probability_part, core, image_shape, limit)
    rows, columns = core
    # Top, bottom, left, right: whether another block lies beyond.
    inner = (
        rows.start > 0,
        rows.stop < image_shape[0],
        columns.start > 0,
        columns.stop < image_shape[1],
    )
    mask = find_foreground(probability_part, marker, settings)
    if mask is None:
        mask = np.zeros(probability_part.shape, dtype=np.bool_)
    nuclei = find_nuclei(mask, marker, settings)
    n_labels, labels = nuclei.n_labels, nuclei.labels
    sides = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    is_open = _find_touching(sides, inner, n_labels)
    at_border = _find_touching(sides, [not is_inner for is_inner in inner], n_labels)
    areas = measure_areas(labels, n_labels)
    sums = sum_by_label(probability_part, labels, n_labels, settings.threshold)
    score_sums = np.zeros(n_labels, dtype=np.int64)
    if calibration is not None:
        score_sums = sum_scores(probability_part, marker, labels, n_labels)

    keep = ~is_open & (areas >= settings.min_area_px)
    keep[0] = False
    finished = Tally(
        count=int(np.count_nonzero(keep)),
        n_foreground=int(areas[keep].sum()),
        border_count=int(np.count_nonzero(at_border & keep)),
        probability_sum=int(sums[keep].sum()),
        right_sum=sum_rights(score_sums[keep], areas[keep], calibration),
    )
    openings = np.zeros(n_labels, dtype=np.int32)
    openings[is_open] = np.arange(1, np.count_nonzero(is_open) + 1)
    seeds = nuclei.seeds
    seed_sides = (seeds[0], seeds[-1], seeds[:, 0], seeds[:, -1])
    nothing = np.zeros(0, dtype=np.int32)
    if out is not None:
        numbers = openings + finished.count * is_open
        numbers[keep] = np.arange(1, finished.count + 1)
        np.take(numbers.astype(np.int32), labels, out=out, mode="clip")
    return BlockSummary(
        probability_part.shape,
        settings.threshold,
        find_seed_threshold(marker is not None, settings),
        settings.min_area_px,
        count_saturated(image_part, limit),
        measure_image(image_part, (keep | is_open).take(labels)),
        finished,
        areas[is_open],
        sums[is_open],
        score_sums[is_open],
        at_border[is_open],
        nuclei.is_seeded[is_open],
        *(
            np.where(is_seed, openings[side], -openings[side]) if is_inner else nothing
            for side, is_seed, is_inner in zip(sides, seed_sides, inner, strict=True)
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
