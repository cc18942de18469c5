"""Which open nuclei of neighbouring blocks are one.

    - Two whose seeds touch across a seam are one.
    - Without a seed in its block, a part of the foreground belongs to the nucleus with
      one that it touches most, together with other such parts that it touches.
    - Such parts that touch no nucleus with a seed are a nucleus themselves.

Without marker maps every pixel of the foreground is seed, and only the first matters.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nucleiseg.instances.blocks import BlockSummary
from nucleiseg.instances.unions import find_roots

Nodes = NDArray[np.int64]
"""Open nuclei of all blocks, numbered from 0."""

Pairs = NDArray[np.int64]
"""(2, n) nodes that touch across a seam."""


def join_across(grid: Sequence[Sequence[BlockSummary]]) -> Nodes:
    """Join the open nuclei of all blocks of an image.

    Parameters
    ----------
    grid : sequence of sequences of BlockSummary
        The blocks by rows and columns.

    Returns
    -------
    (n,) int64 ndarray
        Of each open nucleus, in the order of the blocks, the one that stands for all
        of its nucleus; a smallest one with a seed, where there is one.
    """
    blocks = [block for row in grid for block in row]
    offsets = np.cumsum([0, *(block.n_open for block in blocks)])
    is_seeded = np.concatenate([block.is_seeded for block in blocks])
    seeds, others = [_no_pairs()], [_no_pairs()]
    for one, other in _find_seams(grid, offsets):
        touching, is_seed = _pair(one, other)
        seeds.append(_drop_repeated(touching[:, is_seed]))
        others.append(touching[:, ~is_seeded[touching].all(axis=0)])
    contacts = np.concatenate(others, axis=1)
    is_loose = ~is_seeded[contacts]
    pairs = np.concatenate([*seeds, contacts[:, is_loose.all(axis=0)]], axis=1)
    roots = find_roots(int(offsets[-1]), pairs[0], pairs[1])
    # Now those of which just one has a seed, and that one second.
    mixed = contacts[:, is_loose[0] != is_loose[1]]
    mixed = np.where(is_seeded[mixed[0]], mixed[::-1], mixed)
    return _attach(roots, roots[mixed])


def _attach(roots: Nodes, contacts: Pairs) -> Nodes:
    """Attach trees, the first of each contact, to the second that they touch most."""
    if not contacts.size:
        return roots
    pairs, lengths = np.unique(contacts, axis=1, return_counts=True)
    order = np.lexsort((pairs[1], -lengths, pairs[0]))
    loose, held = pairs[:, order]
    _, best = np.unique(loose, return_index=True)
    standing = np.arange(len(roots))
    standing[loose[best]] = held[best]
    return standing[roots]


def _find_seams(
    grid: Sequence[Sequence[BlockSummary]], offsets: Nodes
) -> list[tuple[Nodes, Nodes]]:
    """Find both sides of each seam: 0 = background, else node + 1, negative off seeds.

    A seam is followed through the whole image, so that diagonal neighbours across
    the corner of four blocks are among those along it::

        . . a | . .
        ------+----
        . . . | b .
    """
    n_columns = len(grid[0])
    starts = offsets[:-1].reshape(len(grid), n_columns)

    def number(side: NDArray[np.int32], row: int, column: int) -> Nodes:
        numbers = side.astype(np.int64)
        numbers += np.sign(numbers) * starts[row, column]
        return numbers

    seams = []
    for row in range(len(grid) - 1):
        above = [number(b.bottom, row, c) for c, b in enumerate(grid[row])]
        below = [number(b.top, row + 1, c) for c, b in enumerate(grid[row + 1])]
        seams.append((np.concatenate(above), np.concatenate(below)))
    for column in range(n_columns - 1):
        before = [number(b[column].right, r, column) for r, b in enumerate(grid)]
        after = [number(b[column + 1].left, r, column + 1) for r, b in enumerate(grid)]
        seams.append((np.concatenate(before), np.concatenate(after)))
    return seams


def _pair(one: Nodes, other: Nodes) -> tuple[Pairs, NDArray[np.bool_]]:
    """Pair the 8-neighbours across one seam, and say where both are of seeds."""
    first = np.concatenate([one, one[:-1], one[1:]])
    second = np.concatenate([other, other[1:], other[:-1]])
    touch = (first != 0) & (second != 0)
    first, second = first[touch], second[touch]
    pairs = np.stack([np.abs(first), np.abs(second)]) - 1
    return pairs, (first > 0) & (second > 0)


def _drop_repeated(pairs: Pairs) -> Pairs:
    """Keep each pair of a run of pixels once."""
    is_new = np.ones(pairs.shape[1], dtype=np.bool_)
    is_new[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)
    return pairs[:, is_new]


def _no_pairs() -> Pairs:
    return np.zeros((2, 0), dtype=np.int64)
