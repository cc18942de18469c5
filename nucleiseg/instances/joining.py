"""From the blocks of an image to all of it: each nucleus on a seam is one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import InstancesConfig
from nucleiseg.instances.blocks import BlockSummary, Core
from nucleiseg.instances.summary import ImageSummary, Tally
from nucleiseg.instances.unions import find_roots

Pairs = NDArray[np.int64]
Grid = list[list[BlockSummary]]


def join_blocks(
    parts: Sequence[tuple[Core, BlockSummary]],
    image_shape: tuple[int, int],
    settings: InstancesConfig,
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

    Returns
    -------
    ImageSummary
        That of the whole image in one piece.

    Raises
    ------
    ValueError
        The blocks are no such grid, or were labelled with other settings.
    """
    blocks, _, roots = _join(parts, image_shape, settings)
    tally = sum((block.finished for block in blocks), Tally())
    tally += _tally_open(blocks, roots, settings.min_area_px)
    return tally.summarise(
        n_pixels=image_shape[0] * image_shape[1],
        n_saturated=sum(block.n_saturated for block in blocks),
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
        of :func:`label_block`: 0 where a nucleus is too small, else 1…count without
        gaps. Block by block, row by row, its k finished nuclei come first, then those
        of its n open ones that are in no block before.
    """
    blocks, offsets, roots = _join(parts, image_shape, settings)
    _, keep = _measure_open(blocks, roots, settings.min_area_px)
    n_finished = np.cumsum([0, *(block.finished.count for block in blocks)])
    n_kept = np.concatenate([[0], np.cumsum(keep)])
    # A nucleus' root is its part in the first block that has any of it.
    of_roots = np.where(keep, n_kept[1:], 0)
    numbers = []
    for place, block in enumerate(blocks):
        start, stop = offsets[place], offsets[place + 1]
        its_first = n_finished[place] + n_kept[start]
        of_roots[start:stop] += n_finished[place + 1] * keep[start:stop]
        finished = np.arange(1, block.finished.count + 1) + its_first
        openings = of_roots[roots[start:stop]]
        numbers.append(np.concatenate([[0], finished, openings]).astype(np.uint32))
    corners = [(rows.start, columns.start) for (rows, columns), _ in parts]
    places = {corner: place for place, corner in enumerate(sorted(corners))}
    return [numbers[places[corner]] for corner in corners]


def _join(
    parts: Sequence[tuple[Core, BlockSummary]],
    image_shape: tuple[int, int],
    settings: InstancesConfig,
) -> tuple[list[BlockSummary], NDArray[np.int64], NDArray[np.int64]]:
    """Find what belongs together.

    Returns
    -------
    blocks : list of BlockSummary
        Row by row.
    offsets : (B + 1,) int64 ndarray
        Before each block, the open nuclei of all blocks before it.
    roots : (n,) int64 ndarray
        The first open nucleus that each of them hangs together with.
    """
    grid = _arrange(parts, image_shape, settings)
    blocks = [block for row in grid for block in row]
    offsets = np.cumsum([0, *(block.n_open for block in blocks)])
    pairs = _find_pairs(grid, offsets)
    return blocks, offsets, find_roots(int(offsets[-1]), pairs[0], pairs[1])


def _measure_open(
    blocks: list[BlockSummary], roots: NDArray[np.int64], min_area_px: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Area of each root's nucleus, and whether it is a root and large enough, (n,)."""
    areas = np.zeros(len(roots), dtype=np.int64)
    np.add.at(areas, roots, np.concatenate([block.areas for block in blocks]))
    return areas, (roots == np.arange(len(roots))) & (areas >= min_area_px)


def _tally_open(
    blocks: list[BlockSummary], roots: NDArray[np.int64], min_area_px: int
) -> Tally:
    areas, keep = _measure_open(blocks, roots, min_area_px)
    at_border = np.zeros(len(roots), dtype=np.bool_)
    at_border[roots[np.concatenate([block.at_border for block in blocks])]] = True
    sums = np.concatenate([block.probability_sums for block in blocks])
    return Tally(
        count=int(np.count_nonzero(keep)),
        n_foreground=int(areas[keep].sum()),
        border_count=int(np.count_nonzero(at_border & keep)),
        # Python's integers have no end; a few hundred thousand are added in no time.
        probability_sum=sum(sums[keep[roots]].tolist()),
    )


def _find_pairs(grid: Grid, offsets: NDArray[np.int64]) -> Pairs:
    """Find the open nuclei that touch across a seam, (2, n), numbered from 0.

    A seam is followed through the whole image, so that diagonal neighbours across
    the corner of four blocks are among those along it::

        . . a | . .
        ------+----
        . . . | b .
    """
    n_columns = len(grid[0])
    starts = offsets[:-1].reshape(len(grid), n_columns)

    def number(side: NDArray[np.int32], row: int, column: int) -> NDArray[np.int64]:
        # -1 is the background.
        return np.where(side > 0, side + (starts[row, column] - 1), -1)

    seams = []
    for row in range(len(grid) - 1):
        above = [number(b.bottom, row, c) for c, b in enumerate(grid[row])]
        below = [number(b.top, row + 1, c) for c, b in enumerate(grid[row + 1])]
        seams.append(_pair(np.concatenate(above), np.concatenate(below)))
    for column in range(n_columns - 1):
        before = [number(b[column].right, r, column) for r, b in enumerate(grid)]
        after = [number(b[column + 1].left, r, column + 1) for r, b in enumerate(grid)]
        seams.append(_pair(np.concatenate(before), np.concatenate(after)))
    return np.concatenate([np.zeros((2, 0), dtype=np.int64), *seams], axis=1)


def _pair(one: NDArray[np.int64], other: NDArray[np.int64]) -> Pairs:
    """Pair the 8-neighbours across one seam, each pair of a run of pixels once."""
    first = np.concatenate([one, one[:-1], one[1:]])
    second = np.concatenate([other, other[1:], other[:-1]])
    touch = (first >= 0) & (second >= 0)
    pairs = np.stack([first[touch], second[touch]])
    if not pairs.size:
        return pairs
    is_new = np.ones(pairs.shape[1], dtype=np.bool_)
    is_new[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)
    return pairs[:, is_new]


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
    made = (block.threshold, block.min_area_px)
    asked = (settings.threshold, settings.min_area_px)
    if made != asked:
        raise ValueError(
            f"{where} was made with threshold and min_area_px {made}, expected "
            f"{asked}; join with the settings of the blocks, or compute them anew"
        )
