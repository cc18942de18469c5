"""Union-find over arrays."""

import numpy as np
from numpy.typing import NDArray


def find_roots(
    n_nodes: int, first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Find which nodes hang together.

    In each round every tree hooks itself below the smallest tree it touches, and all
    trees become flat. Whatever a tree touches is hooked within two rounds, so that at
    least half of the trees are gone, and the rounds are few.

    Parameters
    ----------
    n_nodes : int
        Nodes 0…n_nodes - 1.
    first, second : (n,) int64 ndarray
        Both ends of each connection.

    Returns
    -------
    (n_nodes,) int64 ndarray
        The smallest node that each node hangs together with.
    """
    parents = np.arange(n_nodes, dtype=np.int64)
    while True:
        first, second = parents[first], parents[second]
        apart = first != second
        first, second = first[apart], second[apart]
        if not first.size:
            return parents
        np.minimum.at(parents, np.maximum(first, second), np.minimum(first, second))
        while True:
            above = parents[parents]
            if np.array_equal(above, parents):
                break
            parents = above
