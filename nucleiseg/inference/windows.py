"""Windows of images at some scale, all of one shape for the network."""

import math

import numpy as np
from numpy.typing import NDArray

from nucleiseg.preprocess import rescale, scaled_shape

FloatImage = NDArray[np.float32]

WINDOW_PX = 256
"""Side of all windows at the network's scale: one shape to compile."""

# Side, about, of the reduced image in which the busiest windows are looked for.
_OVERVIEW_PX = 256
# Brighter than this, of the range of the image, is no busier.
_BRIGHTEST = 1.5


def cut_windows(image: FloatImage, scale: float, most: int) -> list[FloatImage]:
    """Cut the windows with most contrast out of an image, and scale them.

    Parameters
    ----------
    image : (H, W) float32 ndarray
        Normalised.
    scale : float
        By how much they are enlarged.
    most : int
        Windows; fewer where the image holds no more side by side.

    Returns
    -------
    list of (h, w) float32 ndarray
        Of at most WINDOW_PX a side; smaller where the image is.
    """
    return [scale_window(found, scale) for found in find_windows(image, scale, most)]


def scale_window(window: FloatImage, scale: float) -> FloatImage:
    """Enlarge or reduce a window, to at most WINDOW_PX a side."""
    height, width = scaled_shape(window.shape, scale)
    return rescale(window, (min(height, WINDOW_PX), min(width, WINDOW_PX)))


def find_windows(image: FloatImage, scale: float, most: int) -> list[FloatImage]:
    """Cut windows as :func:`cut_windows` does, and leave them as large as they are.

    Returns
    -------
    list of (h, w) float32 ndarray
        That have at most WINDOW_PX a side once they are scaled.
    """
    side = max(1, round(WINDOW_PX / scale))
    overview = rescale(image, _shrink(image.shape))
    overview = np.clip(overview, 0, _BRIGHTEST)
    places = [
        (-_measure_contrast(overview, image.shape, (top, left), side), top, left)
        for top in _find_starts(image.shape[0], side)
        for left in _find_starts(image.shape[1], side)
    ]
    return [
        np.ascontiguousarray(image[top : top + side, left : left + side])
        for _, top, left in sorted(places)[:most]
    ]


def pad_window(window: FloatImage) -> FloatImage:
    """Fill a window up to its full size by reflection."""
    margins = [(0, WINDOW_PX - side) for side in window.shape]
    return np.pad(window, margins, mode="reflect")


def _shrink(shape: tuple[int, ...]) -> tuple[int, int]:
    height, width = (min(side, _OVERVIEW_PX) for side in shape)
    return height, width


def _find_starts(length: int, side: int) -> list[int]:
    """Find where windows lie side by side, spread evenly; one where none fits."""
    number = max(1, length // side)
    spare = max(0, length - number * side)
    return [k * side + (2 * k + 1) * spare // (2 * number) for k in range(number)]


def _measure_contrast(
    overview: FloatImage, shape: tuple[int, ...], corner: tuple[int, int], side: int
) -> float:
    """Measure the standard deviation of a window, rounded for a stable order."""
    rows, columns = (
        slice(
            start * short // length,
            math.ceil(min(start + side, length) * short / length),
        )
        for start, short, length in zip(corner, overview.shape, shape, strict=True)
    )
    return round(float(overview[rows, columns].std()), 4)
