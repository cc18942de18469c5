"""Label images: their nuclei counted, and the small ones removed."""

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


def count_instances(labels: NDArray[np.integer], min_area_px: int = 0) -> IntArray:
    """Count the distinct labels above 0 in each image.

    Parameters
    ----------
    labels : (n, H, W) or (H, W) integer ndarray
        Label images, 0 = background; labels need not be consecutive.
    min_area_px : int
        Nuclei of a smaller area are not counted.

    Returns
    -------
    (n,) int64 ndarray
        With n = 1 for one image.

    Raises
    ------
    ValueError
        If `labels` is not integer, is negative somewhere, or is no stack of images.

    Examples
    --------
    >>> count_instances(np.array([[0, 7, 7], [3, 0, 0]]), 2)
    array([1])
    """
    areas = (np.bincount(flatten_labels(image)) for image in to_stack(labels))
    least_px = max(1, min_area_px)
    return np.array([np.count_nonzero(a[1:] >= least_px) for a in areas], np.int64)


def remove_small_instances(
    labels: NDArray[np.integer], min_area_px: int
) -> NDArray[np.integer]:
    """Turn nuclei below an area into background.

    Parameters
    ----------
    labels : (n, H, W) integer ndarray
        Label images, 0 = background.
    min_area_px : int
        The least area that stays; up to 1, everything does.

    Returns
    -------
    (n, H, W) integer ndarray
        Of the dtype of `labels`, which is not changed; labels keep their values.
    """
    if min_area_px <= 1:
        return labels
    kept = labels.copy()
    for image in kept:
        flat = flatten_labels(image)
        small = np.bincount(flat) < min_area_px
        image[small[flat].reshape(image.shape)] = 0
    return kept


def flatten_labels(image: NDArray[np.integer]) -> IntArray:
    """Flatten a label image to int64, with labels small enough to index by."""
    if image.dtype.kind not in "iu":
        raise ValueError(f"labels must be integers, found {image.dtype}")
    flat = image.ravel()
    if flat.size and flat.min() < 0:
        raise ValueError(f"labels must be 0 or more, found {flat.min()}")
    if flat.size and flat.max() > flat.size:
        # 0 goes in front so that the background stays 0 where no pixel shows it.
        with_zero = np.concatenate([np.zeros(1, flat.dtype), flat])
        return np.unique(with_zero, return_inverse=True)[1][1:].astype(np.int64)
    return flat.astype(np.int64)


def to_stack(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """View one label image as a stack of one; leave a stack as it is."""
    if labels.ndim not in (2, 3):
        raise ValueError(f"labels must be (H, W) or (n, H, W), found {labels.shape}")
    return labels[None] if labels.ndim == 2 else labels
