"""Classes of nuclei by area, so that errors can be told by size."""

import numpy as np

from nucleiseg.metrics.labels import IntArray

AREA_EDGES_PX: tuple[int, ...] = (32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Areas at which the next class begins: a class spans a factor of 2 in area, 1.4 in
diameter. Fixed, so that evaluations of any two data sets can be compared; in whole
fields of the 2018 Data Science Bowl a quarter of the nuclei each lies below 110, 300
and 600 px."""

N_AREA_CLASSES = len(AREA_EDGES_PX) + 1


def count_by_area(areas: IntArray) -> IntArray:
    """Count nuclei in each class of area.

    Parameters
    ----------
    areas : (n,) int64 ndarray, in px
        An area of 0 is no nucleus.

    Returns
    -------
    (9,) int64 ndarray
        Below 32 px, 32–63 px … 2048–4095 px, 4096 px and more.

    Examples
    --------
    >>> count_by_area(np.array([0, 31, 32, 63, 5000]))
    array([1, 2, 0, 0, 0, 0, 0, 0, 1])
    """
    classes = np.searchsorted(AREA_EDGES_PX, areas[areas > 0], side="right")
    return np.bincount(classes, minlength=N_AREA_CLASSES)


def area_ranges() -> tuple[tuple[int, int | None], ...]:
    """Give the least and the largest area of each class, in px; None: no largest."""
    edges = (1, *AREA_EDGES_PX)
    largest = (*(edge - 1 for edge in AREA_EDGES_PX), None)
    return tuple(zip(edges, largest, strict=True))
