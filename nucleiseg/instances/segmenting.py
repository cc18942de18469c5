"""Counting the nuclei of one image, and keeping its label image."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import InstancesConfig
from nucleiseg.instances.counting import find_foreground
from nucleiseg.instances.maps import split_maps
from nucleiseg.instances.nuclei import Nuclei, measure_nuclei
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
    labels, needed = _label(image, maps, settings, calibration)
    summary = summarise(
        image, needed, labels, calibration=calibration, scale=_find_scale(image, maps)
    )
    return labels, summary


def segment_and_measure(
    image: NDArray[Any],
    maps: NDArray[np.float32],
    settings: InstancesConfig,
    *,
    calibration: Calibration | None = None,
) -> tuple[NDArray[np.int32], ImageSummary, Nuclei]:
    """Do as :func:`segment_nuclei`, and measure each nucleus, too.

    Parameters and exceptions are the same.

    Returns
    -------
    labels : (H, W) int32 ndarray
    summary : ImageSummary
    nuclei : Nuclei
        In pixels of the image, in the order of the labels.
    """
    labels, needed = _label(image, maps, settings, calibration)
    nuclei = measure_nuclei(needed, labels, calibration=calibration)
    summary = summarise(
        image,
        needed,
        labels,
        calibration=calibration,
        scale=_find_scale(image, maps),
        nuclei=nuclei,
    )
    return labels, summary, nuclei


def _label(
    image: NDArray[Any],
    maps: NDArray[np.float32],
    settings: InstancesConfig,
    calibration: Calibration | None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Label an image; and what is needed of its maps to go on, at the image's size."""
    foreground, marker = split_maps(maps)
    if find_foreground(foreground, marker, settings) is None:
        # Without any, at next to no cost.
        labels = np.zeros(image.shape, dtype=np.int32)
    else:
        labels = label_at_size(maps, image.shape, settings)
    # Without scores to be made of it, the marker map has done its work.
    needed = foreground[..., np.newaxis] if calibration is None else maps
    return labels, restore_maps(needed, image.shape)


def _find_scale(image: NDArray[Any], maps: NDArray[np.float32]) -> float:
    """By how much the network saw the image enlarged."""
    return math.sqrt(maps.shape[0] * maps.shape[1] / image.size)
