"""Normalisation of images that fit into memory."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import PreprocessConfig
from nucleiseg.errors import ArchiveError
from nucleiseg.preprocess.order import find_in_order, is_counted
from nucleiseg.preprocess.ranges import (
    UNCHANGED,
    Range,
    Ranks,
    make_range,
    refuse_empty,
    refuse_not_finite,
)

FloatImage = NDArray[np.float32]


def normalise(image: NDArray[Any], settings: PreprocessConfig) -> FloatImage:
    """Normalise one whole image; tiles are cut from the result, never before.

    Parameters
    ----------
    image : (H, W) ndarray
        Pixel values of any integer or float dtype.
    settings : PreprocessConfig
        ``none`` keeps the values; ``percentile`` maps the image's low and high
        percentile to 0 and 1, without clipping, as StarDist and Cellpose do.

    Returns
    -------
    (H, W) float32 ndarray
        All zeros for an image of constant value under ``percentile``.

    Raises
    ------
    ArchiveError
        The image holds no pixels, NaN or infinite values, or a range that float32
        cannot scale.
    """
    return scale(image, find_range(image, settings))


def find_range(image: NDArray[Any], settings: PreprocessConfig) -> Range:
    """Find the range of a whole image that becomes 0 to 1.

    Parameters
    ----------
    image : (H, W) ndarray
        Pixel values of any integer or float dtype.
    settings : PreprocessConfig

    Returns
    -------
    Range
        For :func:`scale`, of the image or of any part of it.

    Raises
    ------
    ArchiveError
        As :func:`normalise`.
    """
    if not image.size:
        raise refuse_empty()
    counted = is_counted(image.dtype)
    if counted and settings.normalisation == "none":
        return UNCHANGED
    values = _as_contiguous(image) if counted else _as_finite(image)
    if settings.normalisation == "none":
        return UNCHANGED
    ranks = Ranks.find(values.size, settings)
    low, high = ranks.interpolate(find_in_order(values, ranks.indices))
    if high <= low:
        # A few bright pixels on a constant ground have no percentile range either;
        # their full range keeps them visible, and a constant image becomes 0.
        low, high = float(values.min()), float(values.max())
    return make_range(low, high)


def _as_contiguous(image: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("="))


def _as_finite(image: NDArray[Any]) -> FloatImage:
    values = as_float32(image)
    # The extremes of an image with NaN are NaN: no array of flags is needed.
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise refuse_not_finite()
    return values


def as_float32(image: NDArray[Any]) -> FloatImage:
    """Convert to contiguous float32; what lies beyond becomes infinite, silently."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(image, dtype=np.float32)


def scale(
    pixels: NDArray[Any], value_range: Range, *, out: FloatImage | None = None
) -> FloatImage:
    """Scale an image, or a part of one, by the range of the whole image.

    Each pixel by itself: a part of the result is the result of that part, bit by bit,
    and so is the same value of any dtype.

    Parameters
    ----------
    pixels : ndarray
        Finite values of any integer or float dtype.
    value_range : Range
        Of the whole image, by :func:`find_range`.
    out : float32 ndarray of the same shape, optional
        Where to write; by default a new C-contiguous array.

    Returns
    -------
    float32 ndarray of the same shape
    """
    span = value_range.high - value_range.low
    factor = np.float32(1.0 / span if span else 0.0)
    if out is None:
        out = np.empty(pixels.shape, dtype=np.float32)
    # With this dtype the pixels become float32 first, in small pieces in the cache.
    np.subtract(pixels, np.float32(value_range.low), out=out, dtype=np.float32)
    return np.multiply(out, factor, out=out)


def normalise_stack(
    images: NDArray[Any],
    settings: PreprocessConfig,
    *,
    out: FloatImage | None = None,
) -> tuple[FloatImage, list[str | None]]:
    """Normalise each image of a stack; one that cannot be does not stop the others.

    Parameters
    ----------
    images : (N, H, W) ndarray
        Pixel values of any integer or float dtype.
    settings : PreprocessConfig
    out : (N, H, W) float32 ndarray, optional
        Where to write; by default a new C-contiguous array.

    Returns
    -------
    values : (N, H, W) float32 ndarray
        Each image as :func:`normalise` makes it; zeros where it fails.
    reasons : list of str or None
        Why an image failed; None where it did not.
    """
    if out is None:
        out = np.empty(images.shape, dtype=np.float32)
    reasons: list[str | None] = []
    for image, values in zip(images, out, strict=True):
        try:
            scale(image, find_range(image, settings), out=values)
        except ArchiveError as error:
            values[...] = 0
            reasons.append(error.reason)
        else:
            reasons.append(None)
    return out, reasons
