"""From a probability map to a label image, its count and its quality."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import InstancesConfig

# Floats carry no limit of their own; these are those of the cameras behind them.
_FLOAT_LIMITS = (1.0, 255.0, 65535.0)


def label_nuclei(
    probability: NDArray[np.float32], settings: InstancesConfig
) -> NDArray[np.int32]:
    """Label the nuclei of one image.

    Parameters
    ----------
    probability : (H, W) float32 ndarray, in [0, 1]
        Foreground probability of each pixel.
    settings : InstancesConfig
        Threshold and smallest area.

    Returns
    -------
    (H, W) int32 ndarray
        0 = background, 1…n = nuclei: the 8-connected components of the pixels above
        the threshold, in OpenCV's order. With a threshold of 0.5 and no smallest area
        this is the notebook's rounding and counting (N9): NumPy rounds 0.5 to 0.
    """
    mask = (probability > settings.threshold).astype(np.uint8)
    n_components, labels, statistics, _ = cv2.connectedComponentsWithStats(
        mask, connectivity=8
    )
    if settings.min_area_px > 1:
        keep = statistics[:, cv2.CC_STAT_AREA] >= settings.min_area_px
        keep[0] = False
        renumbered = np.zeros(n_components, dtype=np.int32)
        renumbered[keep] = np.arange(1, keep.sum() + 1)
        labels = renumbered[labels]
    return np.asarray(labels, dtype=np.int32)


@dataclass(frozen=True)
class ImageSummary:
    """What the table says of one image. Shares lie in [0, 1]."""

    count: int
    """Nuclei."""
    foreground_share: float
    """Share of pixels that belong to a nucleus."""
    mean_area_px: float | None
    """Mean area of the nuclei; None without any."""
    border_count: int
    """Nuclei that touch the image's edge."""
    saturated_share: float
    """Share of pixels at the largest value of the image's integer dtype; a float
    image is taken to end at 1, 255 or 65535, whichever first holds its maximum, or
    else at its maximum."""
    confidence: float | None
    """Mean foreground probability over the nuclei's pixels; None without any."""


def summarise(
    image: NDArray[np.generic],
    probability: NDArray[np.float32],
    labels: NDArray[np.int32],
) -> ImageSummary:
    """Count the nuclei of a label image and say what may be wrong with the image.

    Parameters
    ----------
    image : (H, W) ndarray
        As stored, before normalisation.
    probability : (H, W) float32 ndarray, in [0, 1]
        Foreground probability.
    labels : (H, W) int32 ndarray
        0 = background, 1…n = nuclei.

    Returns
    -------
    ImageSummary
        Shares and the confidence rounded to 4 decimals, areas to 2: sums of floats
        may differ in their last digits, tables must not.
    """
    count = int(labels.max(initial=0))
    foreground = labels > 0
    n_foreground = int(np.count_nonzero(foreground))
    edges = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return ImageSummary(
        count=count,
        foreground_share=round(n_foreground / labels.size, 4),
        mean_area_px=round(n_foreground / count, 2) if count else None,
        border_count=int(np.unique(edges[edges > 0]).size),
        saturated_share=round(_saturated_pixels(image) / labels.size, 4),
        confidence=(
            round(float(probability[foreground].mean(dtype=np.float64)), 4)
            if count
            else None
        ),
    )


def _saturated_pixels(image: NDArray[np.generic]) -> int:
    kind = image.dtype
    if np.issubdtype(kind, np.integer):
        limit = float(np.iinfo(str(kind)).max)
    else:
        highest = float(image.max(initial=0))
        limit = next((top for top in _FLOAT_LIMITS if highest <= top), highest)
    return int(np.count_nonzero(image == limit))
