"""Predicted and true nuclei matched one to one by IoU, with splits and merges."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleiseg.metrics.labels import IntArray, to_stack
from nucleiseg.metrics.overlaps import find_overlaps
from nucleiseg.metrics.sizes import N_AREA_CLASSES, count_by_area

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
    splits: IntArray
    """(n,) int64, true nuclei to which two or more predictions belong."""
    merges: IntArray
    """(n,) int64, predictions to which two or more true nuclei belong."""
    true_positives: IntArray
    """(n, 10) int64, matched pairs; FP = n_predicted − TP, FN = n_true − TP."""
    true_by_area: IntArray
    """(n, 9) int64, true nuclei by class of their area (`count_by_area`)."""
    missed_by_area: IntArray
    """(n, 9) int64, those of them without a match of IoU 0.5: FN at 0.50."""
    predicted_by_area: IntArray
    """(n, 9) int64, predicted nuclei by class of their own area."""
    false_by_area: IntArray
    """(n, 9) int64, those of them without a match of IoU 0.5: FP at 0.50."""

    def __len__(self) -> int:
        """Give the number of images."""
        return len(self.n_true)

    def select(self, images: NDArray[np.bool_] | IntArray) -> "InstanceMatches":
        """Give the matches of some images, by a mask or by their positions."""
        columns = {name: values[images] for name, values in vars(self).items()}
        return InstanceMatches(**columns)


_WIDTHS = {
    "true_positives": len(IOU_THRESHOLDS),
    "true_by_area": N_AREA_CLASSES,
    "missed_by_area": N_AREA_CLASSES,
    "predicted_by_area": N_AREA_CLASSES,
    "false_by_area": N_AREA_CLASSES,
}
_NAMES = tuple(field.name for field in dataclasses.fields(InstanceMatches))


def match_instances(
    predicted: NDArray[np.integer], truth: NDArray[np.integer]
) -> InstanceMatches:
    """Match predicted to true nuclei one to one by IoU, and find splits and merges.

    IoU = |P ∩ T| / |P ∪ T|. A pair matches at threshold t if IoU ≥ t (as in StarDist
    and Cellpose). Above 0.5 a match is unique. At exactly 0.5 one nucleus may be cut
    into two equal halves, or two equal ones joined; one of the two pairs is then taken,
    the other is not.

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
    return match_label_images(to_stack(predicted), to_stack(truth))


def match_label_images(
    predicted: Iterable[NDArray[np.integer]], truth: Iterable[NDArray[np.integer]]
) -> InstanceMatches:
    """Match label images one by one, as `match_instances`; their sizes may differ.

    Parameters
    ----------
    predicted, truth : iterable of (H, W) integer ndarray
        Equally many; one pair is held at a time.

    Raises
    ------
    ValueError
        If one side has more images, or the shapes of a pair differ.
    """
    rows = []
    for number, (p, t) in enumerate(zip(predicted, truth, strict=True)):
        if p.shape != t.shape or p.ndim != 2:
            raise ValueError(
                f"label images {number} have shapes {p.shape} and {t.shape}, expected "
                "one shape (H, W)"
            )
        rows.append(_match_image(p, t))
    table = {
        name: np.array([row[name] for row in rows], np.int64).reshape(
            (len(rows), _WIDTHS[name]) if name in _WIDTHS else (len(rows),)
        )
        for name in _NAMES
    }
    return InstanceMatches(**table)


def concatenate_matches(pieces: list[InstanceMatches]) -> InstanceMatches:
    """Join the matches of pieces of a data set, in order (one piece or more)."""
    columns = {
        name: np.concatenate([getattr(piece, name) for piece in pieces])
        for name in _NAMES
    }
    return InstanceMatches(**columns)


def _match_image(
    predicted: NDArray[np.integer], truth: NDArray[np.integer]
) -> dict[str, int | IntArray | list[int]]:
    """Match one image: its row of each column of InstanceMatches."""
    overlaps = find_overlaps(predicted, truth)
    p_area, t_area = overlaps.predicted_areas, overlaps.true_areas
    iou = overlaps.matched_iou
    p_classes, t_classes = count_by_area(p_area), count_by_area(t_area)
    hits = [int(np.count_nonzero(iou >= threshold)) for threshold in IOU_THRESHOLDS]
    return {
        "n_predicted": int(p_classes.sum()),
        "n_true": int(t_classes.sum()),
        "splits": int(np.count_nonzero(overlaps.is_split)),
        "merges": int(np.count_nonzero(overlaps.is_merge)),
        "true_positives": hits,
        "true_by_area": t_classes,
        "missed_by_area": t_classes - count_by_area(t_area[overlaps.matched_true]),
        "predicted_by_area": p_classes,
        "false_by_area": p_classes - count_by_area(p_area[overlaps.matched_predicted]),
    }
