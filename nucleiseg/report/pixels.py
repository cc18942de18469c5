"""From an image of any range to grey pixels of a size to look at."""

import math
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[Any]
Grey: TypeAlias = NDArray[np.uint8]

LONGEST_SIDE_PX = 1600
"""No picture is enlarged beyond this, and a larger one is reduced to it."""

_AIM_PX = 1100  # a slide's column: larger pixels than this asks for say nothing more
_TINY_PX = 384  # below this the words beside a picture would dwarf it
_LARGEST_FACTOR = 6
_RESIZABLE = ("uint8", "uint16", "int16", "float32", "float64")


def as_plane(array: ArrayLike, name: str) -> Array:
    """Return one image as a plain (H, W) array, or say what is wrong with it.

    Parameters
    ----------
    array : (H, W) array_like
        A channel axis of length one at the end, as networks put there, is dropped.
    name : str
        What to call it in the message.

    Returns
    -------
    (H, W) ndarray, of the dtype it came in

    Raises
    ------
    ValueError
        If it is not one two-dimensional image with at least one pixel.
    """
    plane = np.asarray(array)
    if plane.ndim == 3 and plane.shape[-1] == 1:
        plane = plane[..., 0]
    if plane.ndim != 2 or plane.size == 0:
        raise ValueError(
            f"{name} has shape {plane.shape}, expected one image (H, W): "
            "pass a single image of a stack"
        )
    return plane


def as_pair(image: ArrayLike, other: ArrayLike, *, name: str) -> tuple[Array, Array]:
    """Return an image and what belongs to it, both (H, W) and of one shape."""
    plane, partner = as_plane(image, "image"), as_plane(other, name)
    if plane.shape != partner.shape:
        raise ValueError(
            f"{name} has shape {partner.shape}, its image {plane.shape}: "
            "both must show the same field"
        )
    return plane, partner


def overlay(image: ArrayLike, mask: ArrayLike, weight: float) -> NDArray[np.float64]:
    """Lay a mask over its image as the notebook does: ``image/255 + weight*mask``.

    Parameters
    ----------
    image : (H, W) ndarray, in [0, 255]
    mask : (H, W) ndarray, in [0, 1]
        0 = background; or a probability map.
    weight : float
        Brightness the mask adds, 0.25 or 0.5 in the notebook.

    Returns
    -------
    (H, W) float64 ndarray, in [0, 1 + weight]
    """
    base = np.asarray(image, dtype=np.float64) / 255
    return base + weight * np.asarray(mask, dtype=np.float64)


def bounds(image: Array, *, tails: float = 0.0) -> tuple[float, float]:
    """Return the lowest and highest finite value, without a share at either end.

    Parameters
    ----------
    image : (H, W) ndarray, any real dtype
        NaN and infinities are left out.
    tails : float
        Percentage cut off at each end.

    Returns
    -------
    low, high : float
        (0, 0) where no value is finite. Where cutting leaves one value only, as with
        a single nucleus in a large black field, nothing is cut.
    """
    values = image.astype(np.float64, copy=False)
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 0.0
    if tails > 0:
        low, high = (float(v) for v in np.percentile(finite, [tails, 100 - tails]))
        if high > low:
            return low, high
    return float(finite.min()), float(finite.max())


def to_grey(image: Array, low: float, high: float) -> Grey:
    """Map [low, high] to black … white; clip the rest; not finite is black.

    Parameters
    ----------
    image : (H, W) ndarray, any real dtype
    low, high : float
        Where they are equal there is nothing to tell apart and all of it is black.

    Returns
    -------
    (H, W) uint8 ndarray
    """
    span = high - low
    if not span > 0:
        return np.zeros(image.shape, np.uint8)
    share = np.clip((image.astype(np.float64) - low) / span, 0, 1)
    share = np.where(np.isfinite(image), share, 0)
    return np.rint(255 * share).astype(np.uint8)


def stretch(image: Array, *, gamma: float = 0.7) -> Grey:
    """Make an image of any range visible: 0.1–99.9 percentiles, dim parts lifted.

    Parameters
    ----------
    image : (H, W) ndarray, any real dtype
    gamma : float
        Below 1 lifts dim nuclei beside bright ones (a mitosis is easily ten times
        as bright as its neighbours); 1 leaves the grey values in proportion.

    Returns
    -------
    (H, W) uint8 ndarray
    """
    low, high = bounds(image, tails=0.1)
    table = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    return table[to_grey(image, low, high)]


def to_255(image: Array) -> tuple[Array, bool]:
    """Bring an image to 0–255, as the notebook's formulas take it.

    Parameters
    ----------
    image : (H, W) ndarray, any real dtype

    Returns
    -------
    image : (H, W) ndarray, in [0, 255]
        As it came where it is such an image already: uint8, or values within 0–255
        that are not just a float image in 0–1.
    is_scaled : bool
        Whether its 0.1–99.9 percentiles were brought to 0–255.
    """
    low, high = bounds(image)
    is_unit_float = image.dtype.kind == "f" and high <= 1 and high > low
    if low >= 0 and high <= 255 and not is_unit_float:
        return image, False
    low, high = bounds(image, tails=0.1)
    span = high - low if high > low else 1.0
    return np.clip((image.astype(np.float64) - low) / span * 255, 0, 255), True


def display_scale(shape: tuple[int, ...], *, limit: int = LONGEST_SIDE_PX) -> float:
    """Choose how much to enlarge an image: a whole factor, or a reduction.

    Parameters
    ----------
    shape : (H, W)
    limit : int
        Longest side allowed, in display pixels.

    Returns
    -------
    float
        At most 6 (more only for images of a few pixels); below 1 where the image is
        larger than the limit. 128 px become 768, 256 px 1024, 2000 px 1600.
    """
    longest = max(shape)
    if longest > limit:
        return limit / longest
    factor = min(_LARGEST_FACTOR, min(_AIM_PX, limit) // longest)
    factor = max(factor, min(2, limit // longest), _TINY_PX // longest)
    return float(factor)


def scaled_shape(shape: tuple[int, ...], scale: float) -> tuple[int, int]:
    """Return height and width on display, never below one pixel."""
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def rescale(image: Array, scale: float) -> Array:
    """Enlarge by repeating pixels, reduce by averaging them: neither blurs.

    Parameters
    ----------
    image : (H, W) ndarray, any real dtype
    scale : float

    Returns
    -------
    (round(H * scale), round(W * scale)) ndarray
    """
    if image.dtype.name not in _RESIZABLE:
        image = image.astype(np.float64)
    factor = max(1, math.ceil(scale))
    if factor > 1:
        image = np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)
    height, width = scaled_shape(
        (image.shape[0] // factor, image.shape[1] // factor), scale
    )
    if image.shape == (height, width):
        return image
    small: Array = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return small
