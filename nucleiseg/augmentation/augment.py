"""A whole image and its labels, changed at random."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.augmentation.geometry import FloatImage, Rng, Turn, draw_geometry
from nucleiseg.augmentation.intensity import change_values
from nucleiseg.config import AugmentationConfig


def augment(
    image: FloatImage,
    labels: NDArray[Any],
    settings: AugmentationConfig,
    rng: Rng,
    *,
    value_range: tuple[float, float] = (0.0, 1.0),
) -> tuple[FloatImage, NDArray[Any]]:
    """Change an image and its labels at random, consistently.

    Parameters
    ----------
    image : (H, W) float32 ndarray
    labels : (H, W) ndarray, 0 = background
    settings : AugmentationConfig
    rng : Generator
        The result depends on nothing but the parameters.
    value_range : (low, high)
        As in :func:`change_values`.

    Returns
    -------
    image : (H, W) float32 ndarray
    labels : (H, W) ndarray
        Values of `labels` only.
    """
    height, width = image.shape
    geometry = draw_geometry(settings, rng, (height, width))
    if isinstance(geometry, Turn):
        image, labels = geometry.apply(image), geometry.apply(labels)
    else:
        centre = ((height - 1) / 2, (width - 1) / 2)
        image, labels = geometry.apply(image, labels, centre=centre)
    changed = change_values(image, settings, rng, value_range=value_range)
    return np.ascontiguousarray(changed), labels
