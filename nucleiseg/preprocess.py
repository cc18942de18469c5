"""From stored pixel values to the network's input: normalisation and dtype only.

Training, evaluation and prediction call :func:`normalise` with the parameters that
the model bundle keeps, so that the network always sees the same.
"""

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import PreprocessConfig
from nucleiseg.errors import ArchiveError

FloatImage = NDArray[np.float32]

_LEAST_SPAN = 1e-30


def normalise(image: NDArray[np.generic], settings: PreprocessConfig) -> FloatImage:
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
        The image holds NaN or infinite values, or a range float32 cannot scale.
    """
    # A float64 beyond float32 becomes infinite, and is refused as such below.
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(image, dtype=np.float32)
    if not np.isfinite(values).all():
        raise ArchiveError("image holds NaN or infinite values; mask or clip them")
    if settings.normalisation == "none":
        return values
    low, high = np.percentile(
        values, (settings.low_percentile, settings.high_percentile)
    )
    if high <= low:
        # A few bright pixels on a constant ground have no percentile range either;
        # their full range keeps them visible, and a constant image becomes 0.
        low, high = float(values.min()), float(values.max())
        if high <= low:
            return np.zeros_like(values)
    span = float(high) - float(low)
    if not _LEAST_SPAN < span < 1 / _LEAST_SPAN:
        raise ArchiveError(
            f"image's values span {span:.3g}, which float32 cannot scale; multiply "
            "them into a usual range"
        )
    scaled = (values - np.float32(low)) * np.float32(1.0 / span)
    return np.asarray(scaled, dtype=np.float32)
