"""Pixels at the end of the camera's scale."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Floats carry no limit of their own; these are those of the cameras behind them.
_FLOAT_LIMITS = (1.0, 255.0, 65535.0)


def saturation_limit(dtype: DTypeLike, highest: float) -> float:
    """Find the value at which an image is saturated.

    Parameters
    ----------
    dtype : dtype
        Of the image as stored.
    highest : float
        Largest value of the whole image; no matter for integers.

    Returns
    -------
    float
        The largest value of an integer dtype; a float image is taken to end at 1, 255
        or 65535, whichever first holds its maximum, or else at its maximum.
    """
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        return float(np.iinfo(kind.name).max)
    return next((top for top in _FLOAT_LIMITS if highest <= top), highest)


def count_saturated(image: NDArray[Any], limit: float | None = None) -> int:
    """Count the saturated pixels of an image, or of a part of it.

    Parameters
    ----------
    image : (H, W) ndarray
        As stored, before normalisation.
    limit : float, optional
        Value of a saturated pixel (:func:`saturation_limit` of the whole image);
        by default taken from the image itself.
    """
    if image.dtype.kind in "iu":
        # Compared as integers: four times as fast as with a float.
        whole = int(np.iinfo(image.dtype.name).max if limit is None else limit)
        return int(np.count_nonzero(image == whole))
    if limit is None:
        limit = saturation_limit(image.dtype, float(image.max(initial=0)))
    return int(np.count_nonzero(image == limit))
