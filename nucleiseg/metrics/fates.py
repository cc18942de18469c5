"""What became of every nucleus of one image, for pictures of errors."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleiseg.metrics.labels import IntArray
from nucleiseg.metrics.overlaps import BoolArray, find_overlaps


@dataclass(frozen=True)
class Fates:
    """Nuclei of one image in the order of their labels, as `match_instances` judges.

    The three answers are independent: a nucleus with a speck inside is both found and
    split, two nuclei of which the larger one fits are one found, one missed, both
    merged.
    """

    true_labels: IntArray
    """(n_true,) int64, ascending."""
    is_found: BoolArray
    """(n_true,) bool, matched with IoU ≥ 0.5; else missed."""
    is_split: BoolArray
    """(n_true,) bool, two predictions or more belong to it."""
    is_merged: BoolArray
    """(n_true,) bool, it belongs to a merge."""
    predicted_labels: IntArray
    """(n_predicted,) int64, ascending."""
    is_right: BoolArray
    """(n_predicted,) bool, matched with IoU ≥ 0.5; else false positive."""
    is_piece: BoolArray
    """(n_predicted,) bool, it belongs to a split nucleus."""
    is_merge: BoolArray
    """(n_predicted,) bool, two true nuclei or more belong to it."""


def judge_nuclei(predicted: NDArray[np.integer], truth: NDArray[np.integer]) -> Fates:
    """Tell which nuclei of an image are found, missed, false, split and merged.

    Parameters
    ----------
    predicted, truth : (H, W) integer ndarray
        Label images, 0 = background; labels need not be consecutive.

    Raises
    ------
    ValueError
        If the shapes differ, or either is no integer image of values ≥ 0.

    Examples
    --------
    >>> fates = judge_nuclei(np.array([[7, 7, 0, 0]]), np.array([[3, 3, 0, 5]]))
    >>> fates.true_labels[fates.is_found], fates.true_labels[~fates.is_found]
    (array([3]), array([5]))
    """
    if predicted.shape != truth.shape or predicted.ndim != 2:
        raise ValueError(
            f"label images have shapes {predicted.shape} and {truth.shape}, expected "
            "one shape (H, W)"
        )
    found = find_overlaps(predicted, truth)
    p, t = np.flatnonzero(found.predicted_areas), np.flatnonzero(found.true_areas)
    is_split, is_merge = found.is_split, found.is_merge
    return Fates(
        true_labels=_positive_labels(truth),
        is_found=np.isin(t, found.matched_true),
        is_split=is_split[t],
        is_merged=is_merge[found.owner_of_true[t]],
        predicted_labels=_positive_labels(predicted),
        is_right=np.isin(p, found.matched_predicted),
        is_piece=is_split[found.owner_of_predicted[p]],
        is_merge=is_merge[p],
    )


def _positive_labels(image: NDArray[np.integer]) -> IntArray:
    """Give the labels in the order in which `flatten_labels` renumbers them."""
    labels = np.unique(image)
    return labels[labels > 0].astype(np.int64)
