"""Connected components of the pixels above the threshold."""

import cv2
import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import InstancesConfig
from nucleiseg.instances.maps import split_maps

# Pixels whose labels are widened to 64 bits at once, which NumPy does to count them.
_PIXELS_AT_ONCE = 2**20


def label_nuclei(
    maps: NDArray[np.float32], settings: InstancesConfig
) -> NDArray[np.int32]:
    """Label the nuclei of one image.

    Parameters
    ----------
    maps : (H, W, C) float32 ndarray, in [0, 1]
        The network's output: foreground probability, and marker map where C = 2.
    settings : InstancesConfig
        Threshold and smallest area.

    Returns
    -------
    (H, W) int32 ndarray
        0 = background, 1…n = nuclei: the 8-connected components of the pixels above
        the threshold, in OpenCV's order. With a threshold of 0.5 and no smallest area
        this is the notebook's rounding and counting (N9): NumPy rounds 0.5 to 0.
    """
    probability, _ = split_maps(maps)
    n_labels, labels = label_mask(probability > settings.threshold)
    if settings.min_area_px > 1:
        keep = measure_areas(labels, n_labels) >= settings.min_area_px
        if not keep[1:].all():
            keep[0] = False
            renumbered = np.zeros(n_labels, dtype=np.int32)
            renumbered[keep] = np.arange(1, keep.sum() + 1)
            labels = renumbered.take(labels)
    return labels


def label_mask(mask: NDArray[np.bool_]) -> tuple[int, NDArray[np.int32]]:
    """Label the 8-connected components of a mask.

    Parameters
    ----------
    mask : (H, W) bool ndarray
        C-contiguous.

    Returns
    -------
    n_labels : int
        Components, and one for the background.
    labels : (H, W) int32 ndarray
        0 = background, 1…n_labels - 1 = components.
    """
    n_labels, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    return int(n_labels), labels


def measure_areas(labels: NDArray[np.int32], n_labels: int) -> NDArray[np.int64]:
    """Count the pixels of each label.

    OpenCV's own statistics take twice as long: they average positions, too.

    Parameters
    ----------
    labels : (H, W) int32 ndarray
        C-contiguous.
    n_labels : int
        Components, and one for the background.

    Returns
    -------
    (n_labels,) int64 ndarray
        In pixels; the first is the background's.
    """
    flat = labels.ravel()
    if flat.size <= _PIXELS_AT_ONCE:
        return np.bincount(flat, minlength=n_labels)
    areas = np.zeros(n_labels, dtype=np.int64)
    for start in range(0, flat.size, _PIXELS_AT_ONCE):
        part = flat[start : start + _PIXELS_AT_ONCE]
        areas += np.bincount(part, minlength=n_labels)
    return areas


def count_touching(labels: NDArray[np.int32], keep: NDArray[np.bool_]) -> int:
    """Count the labels to keep that touch the image's edge.

    Parameters
    ----------
    labels : (H, W) int32 ndarray
    keep : (n_labels,) bool ndarray
        False for the background.
    """
    edges = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    touching = np.bincount(edges, minlength=len(keep))
    return int(np.count_nonzero(touching[keep]))
