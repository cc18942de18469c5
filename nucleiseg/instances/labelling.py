"""From maps to label images: by components of the foreground, or by seeds in them."""

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import InstancesConfig
from nucleiseg.errors import ConfigError
from nucleiseg.instances.maps import split_maps
from nucleiseg.instances.seeding import Nuclei, grow_seeds, take_components

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
        Method, thresholds and smallest area.

    Returns
    -------
    (H, W) int32 ndarray
        0 = background, 1…n = nuclei. With the method `components` they are the
        8-connected components of the pixels above the threshold, in OpenCV's order;
        with a threshold of 0.5 and no smallest area this is the notebook's rounding
        and counting (N9): NumPy rounds 0.5 to 0. With `watershed` see
        :func:`nucleiseg.instances.seeding.grow_seeds`.

    Raises
    ------
    ConfigError
        The method is `watershed`, and there is no marker map.
    """
    probability, marker = split_maps(maps)
    nuclei = find_nuclei(probability > settings.threshold, marker, settings)
    n_labels, labels = nuclei.n_labels, nuclei.labels
    if settings.min_area_px > 1:
        keep = measure_areas(labels, n_labels) >= settings.min_area_px
        if not keep[1:].all():
            keep[0] = False
            renumbered = np.zeros(n_labels, dtype=np.int32)
            renumbered[keep] = np.arange(1, keep.sum() + 1)
            labels = renumbered.take(labels)
    return labels


def find_nuclei(
    mask: NDArray[np.bool_],
    marker: NDArray[np.float32] | None,
    settings: InstancesConfig,
) -> Nuclei:
    """Find the nuclei of any area within the foreground, by the method that is set.

    Parameters
    ----------
    mask : (H, W) bool ndarray
        C-contiguous.
    marker : (H, W) float32 ndarray, in [0, 1], or None
    settings : InstancesConfig
    """
    seed_threshold = find_seed_threshold(marker is not None, settings)
    if marker is None or seed_threshold is None:
        return take_components(mask)
    return grow_seeds(mask, marker, seed_threshold)


def find_seed_threshold(has_marker: bool, settings: InstancesConfig) -> float | None:
    """Find the threshold of seeds; None where components are nuclei.

    Raises
    ------
    ConfigError
        The method is `watershed`, and there is no marker map.
    """
    if settings.method == "watershed" and not has_marker:
        raise ConfigError(
            "instances.method is watershed, and the network gives no marker map "
            "(model.head mask); set instances.method=auto, or use another model"
        )
    is_seeded = has_marker and settings.method != "components"
    return settings.seed_threshold if is_seeded else None


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
