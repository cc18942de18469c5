r"""What one image's pixels say of focus, light and structure, as sums that add up.

Binomial filters, whose weights are powers of two, smooth the image step by step; what
a step takes away is a band of detail::

    stored image -> smooth by 1 px -> by 2.2 px -> by 4.6 px
                           \_ fine band _/ \_ middle band _/

Nothing here depends on the image's unit or offset: flags are made of ratios. OpenCV
sums up in float64, in which squares of large values fit.
"""

import itertools
from dataclasses import astuple, dataclass, fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

_BINOMIAL = np.array([1, 4, 6, 4, 1], dtype=np.float32) / 16
# Blind to all that is smooth, and to edges along rows and columns (Immerkær 1996).
_NOISE_FILTER = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32)
_NEIGHBOURS = np.ones((3, 3), dtype=np.uint8)

# Its float32 values, and five arrays of their size.
_PIXELS_AT_ONCE = 2**20

LEAST_SIDE_PX = 16
"""Images with a shorter side have no bands."""


@dataclass(frozen=True)
class Measures:
    """Sums over an image's pixels; those of its parts add up.

    *Inside* are the pixels of nuclei, *outline* those beside an outline on either side,
    *outside* the rest of the background.
    """

    n_pixels: int = 0
    value_sum: float = 0.0
    n_inside: int = 0
    inside_sum: float = 0.0
    """Values of the pixels inside."""
    highest: float = -np.inf
    """Largest value; -inf without pixels."""
    n_highest: int = 0
    """Pixels inside that have it."""
    n_outside: int = 0
    noise_sum: float = 0.0
    """Absolute response of the noise filter, outside."""
    n_fine: int = 0
    """Pixels of the fine band, every second row and column."""
    fine_energy: float = 0.0
    """Squares of the fine band."""
    n_outline_fine: int = 0
    outline_slope: float = 0.0
    """Absolute slopes of the smoothed image at outlines."""
    n_outside_fine: int = 0
    outside_slope: float = 0.0
    """Absolute slopes of the smoothed image outside."""
    n_middle: int = 0
    """Pixels of the middle band, every fourth row and column."""
    middle_energy: float = 0.0
    """Squares of the middle band."""
    middle_size: float = 0.0
    """Absolute values of the middle band."""
    smooth_sum: float = 0.0
    """Values of the image smoothed by 2.2 px, which has as many pixels as the band."""
    smooth_square: float = 0.0
    smooth_cube: float = 0.0

    def __add__(self, other: "Measures") -> "Measures":
        sums = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in fields(self)
        }
        highest = max(self.highest, other.highest)
        sums["highest"] = highest
        sums["n_highest"] = sum(
            part.n_highest for part in (self, other) if part.highest == highest
        )
        return Measures(**sums)

    def as_numbers(self) -> tuple[float, ...]:
        """All sums, in order; integers are exact as floats."""
        return tuple(float(value) for value in astuple(self))

    @classmethod
    def from_numbers(cls, numbers: tuple[float, ...]) -> "Measures":
        """Make measures of what :meth:`as_numbers` gave."""
        values: dict[str, Any] = {
            field.name: int(number) if field.type is int else number
            for field, number in zip(fields(cls), numbers, strict=True)
        }
        return cls(**values)


def measure_image(
    image: NDArray[Any], inside: NDArray[np.bool_] | None = None
) -> Measures:
    """Measure an image, or a part of one by itself.

    Parameters
    ----------
    image : (H, W) ndarray
        As stored, finite values of any integer or float dtype.
    inside : (H, W) bool ndarray, optional
        Pixels of nuclei; of an image without any, None is faster.

    Returns
    -------
    Measures
        Of the same image in other units the same ratios, but for the last digits. An
        image with a side below 16 px has no bands. A large one is measured in strips,
        each by itself, for the memory's sake.
    """
    n_strips = -(-image.size // _PIXELS_AT_ONCE)
    height = -(-image.shape[0] // n_strips)
    n_strips = -(-image.shape[0] // max(height, LEAST_SIDE_PX))
    if n_strips == 1:
        return _measure_part(image, inside)
    edges = [image.shape[0] * number // n_strips for number in range(n_strips + 1)]
    return sum(
        (
            _measure_part(
                image[top:bottom], None if inside is None else inside[top:bottom]
            )
            for top, bottom in itertools.pairwise(edges)
        ),
        Measures(),
    )


def _measure_part(image: NDArray[Any], inside: NDArray[np.bool_] | None) -> Measures:
    values = np.ascontiguousarray(image, dtype=np.float32)
    sums: dict[str, Any] = {
        "n_pixels": values.size,
        "value_sum": cv2.sumElems(values)[0],
    }
    if min(image.shape) >= LEAST_SIDE_PX:
        # Smoothed values change slowly: every second pixel has all there is to see.
        smooth = _thin(_smooth(values))
        smoother = _smooth(smooth)
        coarse = _thin(smoother)
        sums |= _measure_levels(coarse)
        if inside is not None:
            sums |= _measure_bands(smooth, smoother, coarse)
            sums |= _measure_outlines(values, smooth, inside)
    if inside is not None:
        mask = np.ascontiguousarray(inside).view(np.uint8)
        highest = image.max()
        sums["n_inside"] = int(np.count_nonzero(mask))
        sums["inside_sum"] = cv2.sumElems(cv2.copyTo(values, mask))[0]
        sums["highest"] = float(highest)
        sums["n_highest"] = int(np.count_nonzero((image == highest) & inside))
    return Measures(**sums)


def _measure_levels(coarse: Plane) -> dict[str, Any]:
    levels = coarse.ravel().astype(np.float64)
    squares = levels * levels
    return {
        "n_middle": levels.size,
        "smooth_sum": float(levels.sum()),
        "smooth_square": float(squares.sum()),
        "smooth_cube": float(squares @ levels),
    }


def _measure_bands(smooth: Plane, smoother: Plane, coarse: Plane) -> dict[str, Any]:
    fine = cv2.subtract(smooth, smoother)
    middle = cv2.subtract(coarse, _smooth(coarse))
    return {
        "n_fine": fine.size,
        "fine_energy": cv2.norm(fine, cv2.NORM_L2SQR),
        "middle_energy": cv2.norm(middle, cv2.NORM_L2SQR),
        "middle_size": cv2.norm(middle, cv2.NORM_L1),
    }


def _measure_outlines(
    values: Plane, smooth: Plane, inside: NDArray[np.bool_]
) -> dict[str, Any]:
    mask = np.ascontiguousarray(inside).view(np.uint8)
    grown = cv2.dilate(mask, _NEIGHBOURS)
    outside = np.subtract(1, grown, dtype=np.uint8)
    noise = cv2.filter2D(values, -1, _NOISE_FILTER)
    thin_outline = _thin(grown - cv2.erode(mask, _NEIGHBOURS))
    thin_outside = _thin(outside)
    slopes = (cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1))
    return {
        "n_outside": int(np.count_nonzero(outside)),
        "noise_sum": cv2.norm(noise, cv2.NORM_L1, outside),
        "n_outline_fine": int(np.count_nonzero(thin_outline)),
        "outline_slope": sum(cv2.norm(s, cv2.NORM_L1, thin_outline) for s in slopes),
        "n_outside_fine": int(np.count_nonzero(thin_outside)),
        "outside_slope": sum(cv2.norm(s, cv2.NORM_L1, thin_outside) for s in slopes),
    }


def _smooth(values: Plane) -> Plane:
    smoothed: Plane = cv2.sepFilter2D(values, -1, _BINOMIAL, _BINOMIAL)
    return smoothed


def _thin(plane: NDArray[Any]) -> NDArray[Any]:
    """Keep every second row and column, C-contiguous."""
    return np.ascontiguousarray(plane[::2, ::2])
