"""From the blocks of an image to all of it: each nucleus on a seam is one.

The count, and but for the smallest area all else, is that of the image in one piece:
seeds are joined across seams as in it, and what has no seed in its block goes to a
nucleus that it touches across a seam. Only where several nuclei touch on a seam may
another one of them get some pixels than in one piece: that shows in `border_count`
where they reach the image's edge, and in the count where one of them comes to lie on
the other side of the smallest area. Flags are made of sums over the blocks, each
measured by itself; their limits are far from where seams could matter.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import InstancesConfig
from nucleiseg.instances.blocks import BlockSummary, Core
from nucleiseg.instances.scoring import sum_rights
from nucleiseg.instances.seams import join_across
from nucleiseg.instances.summary import ImageSummary, Tally
from nucleiseg.quality import Calibration, Measures

Grid = list[list[BlockSummary]]


def join_blocks(
    parts: Sequence[tuple[Core, BlockSummary]],
    image_shape: tuple[int, int],
    settings: InstancesConfig,
    *,
    calibration: Calibration | None = None,
) -> ImageSummary:
    """Join the blocks of one image.

    Parameters
    ----------
    parts : sequence of ((slice, slice), BlockSummary)
        Rows and columns of each block within the image, and the block; in any order.
        Together a grid of rows and columns that covers the image, each pixel once.
    image_shape : (int, int)
        Rows and columns of the image.
    settings : InstancesConfig
        As the blocks were labelled with.
    calibration : Calibration, optional
        As the blocks were summarised with.

    Returns
    -------
    ImageSummary
        That of the whole image in one piece, with the exceptions named above.

    Raises
    ------
    ValueError
        The blocks are no such grid, or were labelled with other settings.
    """
    grid = _arrange(parts, image_shape, settings)
    blocks = [block for row in grid for block in row]
    roots = join_across(grid)

    tally = sum((block.finished for block in blocks), Tally())
    tally += _tally_open(blocks, roots, settings.min_area_px, calibration)
    return tally.summarise(
        sum((block.measures for block in blocks), Measures()),
        n_saturated=sum(block.n_saturated for block in blocks),
        calibration=calibration,
    )


def number_blocks(
    parts: Sequence[tuple[Core, BlockSummary]],
    image_shape: tuple[int, int],
    settings: InstancesConfig,
) -> list[NDArray[np.uint32]]:
    """Give the nuclei of one image numbers that hold for all of its blocks.

    Parameters and exceptions are those of :func:`join_blocks`.

    Returns
    -------
    list of (k + n + 1,) uint32 ndarray
        For each block, in the order of `parts`, the number in the image of each label
        of :func:`summarise_block`: 0 where a nucleus is too small, else 1…count without
        gaps. Block by block, row by row, its k finished nuclei come first, then those
        of its n open ones that stand for all of their nucleus.
    """
    grid = _arrange(parts, image_shape, settings)
    blocks = [block for row in grid for block in row]
    roots = join_across(grid)
    _, keep = _measure_open(blocks, roots, settings.min_area_px)
    n_open = [block.n_open for block in blocks]
    offsets = np.cumsum([0, *n_open])
    n_finished = np.cumsum([0, *(block.finished.count for block in blocks)])
    n_kept = np.concatenate([[0], np.cumsum(keep)])
    finished_before = np.repeat(n_finished[1:], n_open)
    of_roots = np.where(keep, n_kept[1:] + finished_before, 0)
    numbers = []
    for place, block in enumerate(blocks):
        start, stop = offsets[place], offsets[place + 1]
        finished = np.arange(1, block.finished.count + 1)
        finished += n_finished[place] + n_kept[start]
        openings = of_roots[roots[start:stop]]
        numbers.append(np.concatenate([[0], finished, openings]).astype(np.uint32))
    corners = [(rows.start, columns.start) for (rows, columns), _ in parts]
    places = {corner: place for place, corner in enumerate(sorted(corners))}
    return [numbers[places[corner]] for corner in corners]


def _measure_open(
    blocks: list[BlockSummary], roots: NDArray[np.int64], min_area_px: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Area of each root's nucleus, and whether it is a root and large enough, (n,)."""
    areas = np.zeros(len(roots), dtype=np.int64)
    np.add.at(areas, roots, np.concatenate([block.areas for block in blocks]))
    return areas, (roots == np.arange(len(roots))) & (areas >= min_area_px)


def _tally_open(
    blocks: list[BlockSummary],
    roots: NDArray[np.int64],
    min_area_px: int,
    calibration: Calibration | None,
) -> Tally:
    areas, keep = _measure_open(blocks, roots, min_area_px)
    at_border = np.zeros(len(roots), dtype=np.bool_)
    at_border[roots[np.concatenate([block.at_border for block in blocks])]] = True
    sums = np.concatenate([block.probability_sums for block in blocks])
    score_sums = np.zeros(len(roots), dtype=np.int64)
    np.add.at(score_sums, roots, np.concatenate([b.score_sums for b in blocks]))
    return Tally(
        count=int(np.count_nonzero(keep)),
        n_foreground=int(areas[keep].sum()),
        border_count=int(np.count_nonzero(at_border & keep)),
        # Python's integers have no end; a few hundred thousand are added in no time.
        probability_sum=sum(sums[keep[roots]].tolist()),
        right_sum=sum_rights(score_sums[keep], areas[keep], calibration),
    )


def _arrange(
    parts: Sequence[tuple[Core, BlockSummary]],
    image_shape: tuple[int, int],
    settings: InstancesConfig,
) -> Grid:
    """Arrange the blocks in rows and columns, and check that nothing is missing."""
    found = {
        (rows.start, rows.stop, columns.start, columns.stop): block
        for (rows, columns), block in parts
    }
    rows = sorted({place[:2] for place in found})
    columns = sorted({place[2:] for place in found})
    places = [[(*row, *column) for column in columns] for row in rows]
    expected = {place for row in places for place in row}
    if (
        len(found) != len(parts)
        or set(found) != expected
        or not _covers(rows, image_shape[0])
        or not _covers(columns, image_shape[1])
    ):
        raise ValueError(
            f"{len(parts)} blocks with edges at rows {rows} and columns {columns} do "
            f"not cover an image of {image_shape} once; join all blocks of one grid"
        )
    for place, block in found.items():
        _check(block, place, image_shape, settings)
    if len({block.seed_threshold is None for block in found.values()}) > 1:
        raise ValueError(
            f"some of {len(parts)} blocks were made with seeds and some without; "
            "compute them anew with one model"
        )
    return [[found[place] for place in row] for row in places]


def _covers(spans: list[tuple[int, int]], length: int) -> bool:
    starts = [0, *(stop for _, stop in spans)]
    ends = [*(start for start, _ in spans), length]
    return starts == ends and all(start < stop for start, stop in spans)


def _check(
    block: BlockSummary,
    place: tuple[int, int, int, int],
    image_shape: tuple[int, int],
    settings: InstancesConfig,
) -> None:
    top, bottom, left, right = place
    height, width = bottom - top, right - left
    where = f"block of rows {top}:{bottom}, columns {left}:{right}"
    lengths = [len(side) for side in (block.top, block.bottom, block.left, block.right)]
    inner = [
        width * (top > 0),
        width * (bottom < image_shape[0]),
        height * (left > 0),
        height * (right < image_shape[1]),
    ]
    if block.shape != (height, width) or lengths != inner:
        raise ValueError(
            f"{where} was made with shape {block.shape} and seams of {lengths} pixels, "
            f"expected {(height, width)} and {inner}; compute it anew"
        )
    # Whether there are markers was the network's to say.
    is_seeded = settings.method == "watershed" or (
        settings.method == "auto" and block.seed_threshold is not None
    )
    made = (block.threshold, block.min_area_px, block.seed_threshold)
    asked = (
        settings.threshold,
        settings.min_area_px,
        settings.seed_threshold if is_seeded else None,
    )
    if made != asked:
        raise ValueError(
            f"{where} was made with threshold, min_area_px and seed_threshold {made}, "
            f"expected {asked}; join with the settings of the blocks, or compute them "
            "anew"
        )
