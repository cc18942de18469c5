"""What the network is to learn, from labels."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]

BACKGROUND, INTERIOR, BOUNDARY = 0, 1, 2
"""Classes of a pixel."""

N_CHANNELS = {"mask": 1, "boundary": 3, "distance": 3, "combined": 3}
"""Channels of the targets of each head of the network."""

# A boundary is as wide as the nuclei are large: this share of their radius to either
# side, in whole pixels.
_WIDTH_SHARE = 0.15
_MOST_WIDTH_PX = 4
# Background closer than this to two nuclei is a gap that must not close.
_GAP_PX = 4
# Larger than any label of a crop, renumbered.
_BEYOND = 65535


def targets(labels: NDArray[Any], head: str = "mask") -> FloatImage:
    """Make the training targets of a crop, or of a stack of them.

    Parameters
    ----------
    labels : (..., H, W) ndarray
        Masks or instance labels, 0 = background, after augmentation.
    head : {"mask", "boundary", "distance", "combined"}
        See :class:`nucleiseg.config.ModelConfig`.

    Returns
    -------
    (..., H, W, C) float32 ndarray
        For `mask`, C = 1: 1 where a nucleus is. For the others, C = 3: the class (0
        background, 1 interior, 2 boundary where nuclei touch), the distance from the
        nucleus' edge (0 to 1, its largest), and 1 where nuclei touch or nearly do.
    """
    if head == "mask":
        return (labels > 0).astype(np.float32)[..., np.newaxis]
    stack = labels.reshape(-1, *labels.shape[-2:])
    made = np.stack([_make_targets(number_labels(crop)) for crop in stack])
    return made.reshape(*labels.shape, N_CHANNELS[head])


def number_labels(labels: NDArray[Any]) -> NDArray[np.uint16]:
    """Renumber the labels of a crop 1…n, (H, W)."""
    # Negative labels and fractions are refused when the data are opened.
    numbers = np.asarray(labels, dtype=np.int64)
    if numbers.max() < _BEYOND:
        # Ten times as fast as sorting.
        is_there = np.bincount(numbers.ravel()) > 0
    else:
        values, places = np.unique(numbers, return_inverse=True)
        numbers = places.reshape(labels.shape) + int(values[0] != 0)
        is_there = np.ones(int(numbers.max()) + 1, np.bool_)
    is_there[0] = False
    return (np.cumsum(is_there) * is_there).astype(np.uint16).take(numbers)


def label_components(mask: NDArray[Any]) -> NDArray[np.int32]:
    """Take the 8-connected components of a mask (H, W) for its nuclei."""
    return np.asarray(
        cv2.connectedComponents((mask > 0).astype(np.uint8), connectivity=8)[1],
        dtype=np.int32,
    )


def median_diameter(labels: NDArray[Any], *, is_mask: bool) -> float:
    """Measure the nuclei of an image (H, W) with labels, or with a mask.

    Returns
    -------
    float
        Median of the diameters of circles of the nuclei's areas, px; NaN without any.
    """
    numbers = label_components(labels) if is_mask else number_labels(labels)
    areas = np.bincount(numbers.ravel())[1:]
    if not areas.size:
        return float("nan")
    return float(np.median(np.sqrt(areas * (4 / np.pi))))


def _make_targets(labels: NDArray[np.uint16]) -> FloatImage:
    """Make the three channels of one crop with labels 1…n."""
    made = np.zeros((*labels.shape, 3), np.float32)
    areas = np.bincount(labels.ravel())
    if len(areas) == 1:
        return made
    is_inside = labels > 0
    touching = find_touching(labels, areas)
    made[..., 0] = np.where(touching, BOUNDARY, is_inside)
    made[..., 1] = measure_distance(labels, len(areas))
    made[..., 2] = touching | _find_contact(labels, _GAP_PX)
    return made


def find_touching(
    labels: NDArray[np.uint16], areas: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Find the boundary of touching nuclei, as wide as the nuclei are large.

    Parameters
    ----------
    labels : (H, W) uint16 ndarray
        0 = background, 1…n.
    areas : (n + 1,) int64 ndarray
        Pixels of each label.

    Returns
    -------
    (H, W) bool ndarray
        True near two nuclei, also in a gap between them. Seen from both sides, so
        that a small nucleus beside a large one does not vanish in its boundary.
    """
    diameters = np.sqrt(areas * (4 / np.pi))
    widths = np.clip(np.rint(_WIDTH_SHARE * diameters / 2), 1, _MOST_WIDTH_PX)
    widths[0] = 0
    found = np.zeros(labels.shape, np.bool_)
    for width in range(1, int(widths.max()) + 1):
        wide = labels
        if width > 1:
            wide = np.where(widths >= width, np.arange(len(areas)), 0).astype(np.uint16)
            wide = wide.take(labels)
        found |= _find_contact(wide, width)
    return found


def _find_contact(labels: NDArray[np.uint16], radius_px: int) -> NDArray[np.bool_]:
    """Find the pixels with two different labels within a radius."""
    side = 2 * radius_px + 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    highest = cv2.dilate(labels, disk)
    lowest = cv2.erode(np.where(labels > 0, labels, _BEYOND).astype(np.uint16), disk)
    return np.asarray((lowest < highest) & (lowest < _BEYOND), dtype=np.bool_)


def measure_distance(labels: NDArray[np.uint16], n_labels: int) -> FloatImage:
    """Measure how deep inside its nucleus each pixel lies.

    Parameters
    ----------
    labels : (H, W) uint16 ndarray
        0 = background, 1…n_labels - 1.
    n_labels : int

    Returns
    -------
    (H, W) float32 ndarray, in [0, 1]
        Euclidean distance from the edge, over the largest one of the nucleus.
    """
    # Edges between touching nuclei: one pixel on each side becomes ground to measure
    # from, and lies half a pixel from the edge itself.
    differs = np.zeros(labels.shape, np.bool_)
    down = labels[1:] != labels[:-1]
    right = labels[:, 1:] != labels[:, :-1]
    differs[1:] |= down
    differs[:-1] |= down
    differs[:, 1:] |= right
    differs[:, :-1] |= right
    inside = labels > 0
    core = (inside & ~differs).astype(np.uint8)
    distance = cv2.distanceTransform(core, cv2.DIST_L2, cv2.DIST_MASK_5)
    distance += 0.5
    distance *= inside
    deepest = np.zeros(n_labels, np.float32)
    np.maximum.at(deepest, labels.ravel(), distance.ravel())
    deepest[0] = 1
    return np.asarray(distance / deepest.take(labels), dtype=np.float32)
