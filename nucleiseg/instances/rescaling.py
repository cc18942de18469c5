"""Label images and maps of an image that the network saw enlarged or reduced."""

import cv2
import numpy as np
from numpy.typing import NDArray


def restore_labels(
    labels: NDArray[np.int32], shape: tuple[int, ...], *, renumber: bool = True
) -> NDArray[np.int32]:
    """Bring a label image to the size of the image as stored.

    Parameters
    ----------
    labels : (h, w) int32 ndarray
        0 = background, 1…n = nuclei.
    shape : (int, int)
        Of the image as stored.
    renumber : bool
        False keeps the numbers, with gaps.

    Returns
    -------
    (H, W) int32 ndarray
        Each pixel has the label that lies under its centre. A nucleus that lies under
        no centre, and is smaller than a pixel, is gone; the others are numbered 1…m
        in their order.
    """
    if labels.shape == shape:
        return labels
    rows, columns = (
        ((2 * np.arange(side) + 1) * length // (2 * side))
        for side, length in zip(shape, labels.shape, strict=True)
    )
    restored: NDArray[np.int32] = labels.take(rows, axis=0).take(columns, axis=1)
    if not renumber:
        return restored
    is_there = np.zeros(int(labels.max(initial=0)) + 1, dtype=np.bool_)
    is_there[restored] = True
    is_there[0] = False
    if is_there[1:].all():
        return restored
    numbers = np.cumsum(is_there, dtype=np.int32) * is_there
    renumbered: NDArray[np.int32] = numbers.astype(np.int32).take(restored)
    return renumbered


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
    if maps.shape[:2] == shape:
        return maps
    height, width = shape
    resized = cv2.resize(maps, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.float32).reshape(height, width, maps.shape[2])
