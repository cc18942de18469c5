"""Counting the nuclei of one image, and keeping its label image."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import InstancesConfig
from nucleiseg.instances.labelling import label_nuclei
from nucleiseg.instances.summary import ImageSummary, summarise


def segment_nuclei(
    image: NDArray[Any], maps: NDArray[np.float32], settings: InstancesConfig
) -> tuple[NDArray[np.int32], ImageSummary]:
    """Label the nuclei of an image, and say what :func:`count_nuclei` says of it.

    Parameters
    ----------
    image : (H, W) ndarray
        As stored, before normalisation.
    maps : (H, W, C) float32 ndarray, in [0, 1]
        The network's output: foreground probability, and marker map where C = 2.
    settings : InstancesConfig

    Returns
    -------
    labels : (H, W) int32 ndarray
        Of :func:`label_nuclei`.
    summary : ImageSummary
        Its count is the largest label.

    Raises
    ------
    ValueError
        "not finite": a map has NaN or an infinite value.
    """
    if not np.isfinite(maps.max()):
        raise ValueError("not finite")
    labels = label_nuclei(maps, settings)
    return labels, summarise(image, maps, labels)
