"""Predicted and true nuclei matched one to one by IoU, with splits and merges."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleiseg.metrics.labels import IntArray, flatten_labels, to_stack

IOU_THRESHOLDS: tuple[float, ...] = tuple(k / 100 for k in range(50, 100, 5))
"""0.50, 0.55 … 0.95, the thresholds of the 2018 Data Science Bowl.

Written as quotients: they round as the quotient of two areas does, so that an IoU of
exactly 11/20 reaches the threshold 0.55 (`np.arange` would miss some)."""


@dataclass(frozen=True)
class InstanceMatches:
    """What was matched in each of n images, at each of the IoU_THRESHOLDS."""

    n_predicted: IntArray
    """(n,) int64, predicted nuclei."""
    n_true: IntArray
    """(n,) int64, true nuclei."""
    true_positives: IntArray
    """(n, 10) int64, matched pairs; FP = n_predicted − TP, FN = n_true − TP."""
    splits: IntArray
    """(n,) int64, true nuclei to which two or more predictions belong."""
    merges: IntArray
    """(n,) int64, predictions to which two or more true nuclei belong."""


def match_instances(
    predicted: NDArray[np.integer], truth: NDArray[np.integer]
) -> InstanceMatches:
    """Match predicted to true nuclei one to one by IoU, and find splits and merges.

    A pair matches at threshold t if IoU ≥ t (as in StarDist and Cellpose). Above 0.5 a
    match is unique. At exactly 0.5 one nucleus may be cut into two equal halves, or
    two equal ones joined; one of the two pairs is then taken, the other is not.

    A prediction *belongs* to a true nucleus if more than half of its area lies in it,
    and a true nucleus to a prediction likewise: each belongs to one at most. A *split*
    is a true nucleus to which two or more predictions belong, a *merge* a prediction to
    which two or more true nuclei do. Specks count: one of a few pixels inside a nucleus
    that is otherwise well predicted makes a split.

    Parameters
    ----------
    predicted, truth : (n, H, W) or (H, W) integer ndarray
        Label images, 0 = background; labels need not be consecutive.

    Returns
    -------
    InstanceMatches
        One entry an image.

    Raises
    ------
    ValueError
        If the shapes differ, or either is no integer stack of values ≥ 0.

    References
    ----------
    StarDist, `stardist/matching.py`; Caicedo et al., Nature Methods 16 (2019), 1247.

    Examples
    --------
    >>> one, two = np.array([[1, 1, 1, 1]]), np.array([[5, 5, 9, 9]])
    >>> match_instances(two, one).splits, match_instances(one, two).merges
    (array([1]), array([1]))
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"shapes differ: {predicted.shape} and {truth.shape}")
    pairs = zip(to_stack(predicted), to_stack(truth), strict=True)
    rows = [_match_image(p, t) for p, t in pairs]
    table = np.array(rows, np.int64).reshape(-1, 4 + len(IOU_THRESHOLDS))
    return InstanceMatches(
        n_predicted=table[:, 0],
        n_true=table[:, 1],
        splits=table[:, 2],
        merges=table[:, 3],
        true_positives=table[:, 4:],
    )


def concatenate_matches(pieces: list[InstanceMatches]) -> InstanceMatches:
    """Join the matches of pieces of a data set, in order (one piece or more)."""
    return InstanceMatches(
        n_predicted=np.concatenate([piece.n_predicted for piece in pieces]),
        n_true=np.concatenate([piece.n_true for piece in pieces]),
        true_positives=np.concatenate([piece.true_positives for piece in pieces]),
        splits=np.concatenate([piece.splits for piece in pieces]),
        merges=np.concatenate([piece.merges for piece in pieces]),
    )


def _match_image(
    predicted: NDArray[np.integer], truth: NDArray[np.integer]
) -> list[int]:
    """Match one image: [predicted, true, splits, merges, TP at each threshold]."""
    p_flat, t_flat = flatten_labels(predicted), flatten_labels(truth)
    p_area, t_area = np.bincount(p_flat), np.bincount(t_flat)
    p, t, overlap = _overlaps(p_flat, t_flat, len(p_area), len(t_area))
    iou = overlap / (p_area[p] + t_area[t] - overlap)
    splits = np.bincount(t[2 * overlap > p_area[p]]) >= 2
    merges = np.bincount(p[2 * overlap > t_area[t]]) >= 2
    # Where two pairs share a nucleus at IoU 0.5, the three are alone together (the
    # halves fill the whole), so dropping repeats on either side leaves one pair.
    p, t, iou = (values[iou >= 0.5] for values in (p, t, iou))
    first = np.unique(t, return_index=True)[1]
    p, iou = p[first], iou[first]
    iou = iou[np.unique(p, return_index=True)[1]]
    hits = (np.count_nonzero(iou >= threshold) for threshold in IOU_THRESHOLDS)
    n_nuclei = (np.count_nonzero(area[1:]) for area in (p_area, t_area))
    return [*map(int, n_nuclei), int(splits.sum()), int(merges.sum()), *map(int, hits)]


def _overlaps(
    predicted: IntArray, truth: IntArray, n_predicted: int, n_true: int
) -> tuple[IntArray, IntArray, IntArray]:
    """List the overlapping pairs: labels of both, and the pixels they share."""
    both = (predicted > 0) & (truth > 0)
    codes = truth[both] * n_predicted + predicted[both]
    # One bin a pair is fastest while the bins are not many more than the pixels.
    if n_true * n_predicted <= 4 * predicted.size:
        px = np.bincount(codes)
        pairs = np.flatnonzero(px)
        px = px[pairs]
    else:
        pairs, px = np.unique(codes, return_counts=True)
    return pairs % n_predicted, pairs // n_predicted, px
