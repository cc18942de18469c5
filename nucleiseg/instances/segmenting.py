"""Counting the nuclei of one image, and keeping its label image."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import InstancesConfig
from nucleiseg.instances.counting import find_foreground
from nucleiseg.instances.maps import split_maps
from nucleiseg.instances.rescaling import label_at_size, restore_maps
from nucleiseg.instances.summary import ImageSummary, summarise
from nucleiseg.quality import Calibration


def segment_nuclei(
    image: NDArray[Any],
    maps: NDArray[np.float32],
    settings: InstancesConfig,
    *,
    calibration: Calibration | None = None,
) -> tuple[NDArray[np.int32], ImageSummary]:
    """Label the nuclei of an image, and say what :func:`count_nuclei` says of it.

    Parameters
    ----------
    image : (H, W) ndarray
        As stored, before normalisation.
    maps : (h, w, C) float32 ndarray, in [0, 1]
        The network's output: foreground probability, and marker map where C = 2. Of
        another size than the image where the network saw it enlarged or reduced.
    settings : InstancesConfig
        Method, thresholds and smallest area; this one in pixels of the maps.
    calibration : Calibration, optional
        The model's.

    Returns
    -------
    labels : (H, W) int32 ndarray
        Of :func:`nucleiseg.instances.label_at_size`.
    summary : ImageSummary
        Its count is the largest label, its areas are in pixels of the image.

    Raises
    ------
    ValueError
        "not finite": a probability is NaN or infinite; the caller knows which image.
    ConfigError
        The method is `watershed`, and there is no marker map.
    """
    foreground, marker = split_maps(maps)
    if find_foreground(foreground, marker, settings) is None:
        # Without any, at next to no cost.
        labels = np.zeros(image.shape, dtype=np.int32)
    else:
        labels = label_at_size(maps, image.shape, settings)
    # Without scores to be made of it, the marker map has done its work.
    needed = foreground[..., np.newaxis] if calibration is None else maps
    summary = summarise(
        image,
        restore_maps(needed, image.shape),
        labels,
        calibration=calibration,
        scale=math.sqrt(foreground.size / image.size),
    )
    return labels, summary
