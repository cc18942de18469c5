"""Nuclei of an image that was predicted enlarged or reduced."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import InstancesConfig
from nucleiseg.instances.counting import find_foreground
from nucleiseg.instances.labelling import label_nuclei
from nucleiseg.instances.maps import split_maps
from nucleiseg.instances.summary import ImageSummary, summarise


def segment_rescaled(
    image: NDArray[Any], maps: NDArray[np.float32], settings: InstancesConfig
) -> tuple[NDArray[np.int32], ImageSummary]:
    """Label and count the nuclei of an image whose maps have another size.

    Parameters
    ----------
    image : (H, W) ndarray
        As stored, before normalisation and scaling.
    maps : (h, w, C) float32 ndarray, in [0, 1]
        The network's output for the enlarged or reduced image.
    settings : InstancesConfig
        As tuned at the network's scale: `min_area_px` is in pixels of the maps.

    Returns
    -------
    labels : (H, W) int32 ndarray
        0 = background, 1…n = nuclei.
    summary : ImageSummary
        Of these labels: count, areas and edge in pixels of the image as stored.

    Raises
    ------
    ValueError
        "not finite": a probability is; the caller knows which image.
    """
    foreground, _ = split_maps(maps)
    if find_foreground(foreground, settings) is None:
        labels = np.zeros(image.shape, dtype=np.int32)
    else:
        labels = restore_labels(label_nuclei(maps, settings), image.shape)
    restored = restore_maps(foreground[..., np.newaxis], image.shape)
    return labels, summarise(image, restored, labels)


def restore_labels(
    labels: NDArray[np.int32], shape: tuple[int, ...]
) -> NDArray[np.int32]:
    """Bring a label image to the size of the image as stored.

    Parameters
    ----------
    labels : (h, w) int32 ndarray
        0 = background, 1…n = nuclei.
    shape : (int, int)
        Of the image as stored.

    Returns
    -------
    (H, W) int32 ndarray
        Each pixel has the label that lies under its centre. A nucleus that lies under
        no centre, and is smaller than a pixel, is gone; the others are numbered 1…m
        in their order.
    """
    rows, columns = (
        ((2 * np.arange(side) + 1) * length // (2 * side))
        for side, length in zip(shape, labels.shape, strict=True)
    )
    restored = labels.take(rows, axis=0).take(columns, axis=1)
    is_there = np.zeros(int(labels.max(initial=0)) + 1, dtype=np.bool_)
    is_there[restored] = True
    is_there[0] = False
    if is_there[1:].all():
        return restored
    numbers = np.cumsum(is_there, dtype=np.int32) * is_there
    return numbers.astype(np.int32, copy=False).take(restored)


def restore_maps(
    maps: NDArray[np.float32], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Bring maps to the size of the image as stored, interpolated linearly.

    Parameters
    ----------
    maps : (h, w, C) float32 ndarray, in [0, 1]
    shape : (int, int)
        Of the image as stored.

    Returns
    -------
    (H, W, C) float32 ndarray, in [0, 1]
    """
    height, width = shape
    resized = cv2.resize(maps, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.float32).reshape(height, width, maps.shape[2])
