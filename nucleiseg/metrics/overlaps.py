"""Which predicted and true nuclei of one image overlap, and how they belong together.

The table of overlaps is sparse: time and memory grow with the pixels and with the
pairs that touch, never with the product of the numbers of nuclei.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleiseg.metrics.labels import IntArray, flatten_labels

MATCH_IOU = 0.5
"""The least IoU of a match; above it, no nucleus can have two."""

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Overlaps:
    """Nuclei of one image by label, and their pairs; labels as `flatten_labels` gives.

    A pair *matches* if its IoU is 0.5 or more. A prediction *belongs* to a true nucleus
    if more than half of its area lies in it, a true nucleus to a prediction likewise:
    each belongs to one at most.
    """

    predicted_areas: IntArray
    """(largest predicted label + 1,) int64, in px; 0 where there is no such label."""
    true_areas: IntArray
    """(largest true label + 1,) int64, in px; likewise."""
    matched_predicted: IntArray
    """(n_matches,) int64, labels; none twice."""
    matched_true: IntArray
    """(n_matches,) int64, labels; none twice."""
    matched_iou: NDArray[np.float64]
    """(n_matches,) float64, in [0.5, 1]."""
    owner_of_predicted: IntArray
    """(largest predicted label + 1,) int64, the true nucleus a prediction belongs to, 0
    where there is none."""
    owner_of_true: IntArray
    """(largest true label + 1,) int64, likewise."""

    @property
    def is_split(self) -> BoolArray:
        """True nuclei, by label, to which two predictions or more belong."""
        n_pieces = np.bincount(self.owner_of_predicted, minlength=len(self.true_areas))
        return _without_background(n_pieces >= 2)

    @property
    def is_merge(self) -> BoolArray:
        """Predictions, by label, to which two true nuclei or more belong."""
        n_parts = np.bincount(self.owner_of_true, minlength=len(self.predicted_areas))
        return _without_background(n_parts >= 2)


def find_overlaps(
    predicted: NDArray[np.integer], truth: NDArray[np.integer]
) -> Overlaps:
    """Find the pairs of one image's nuclei that match, and what belongs to what.

    Parameters
    ----------
    predicted, truth : (H, W) integer ndarray
        Label images, 0 = background; labels need not be consecutive.
    """
    p_flat, t_flat = flatten_labels(predicted), flatten_labels(truth)
    # One bin at least, of the background, in an image without pixels too.
    p_area, t_area = (np.bincount(flat, minlength=1) for flat in (p_flat, t_flat))
    p_area[0] = t_area[0] = 0
    p, t, overlap = _list_pairs(p_flat, t_flat, len(p_area), len(t_area))
    iou = overlap / (p_area[p] + t_area[t] - overlap)
    owner_of_p, owner_of_t = np.zeros_like(p_area), np.zeros_like(t_area)
    is_inside = 2 * overlap > p_area[p]
    owner_of_p[p[is_inside]] = t[is_inside]
    is_inside = 2 * overlap > t_area[t]
    owner_of_t[t[is_inside]] = p[is_inside]
    # Where two pairs share a nucleus at IoU 0.5, the three are alone together (the
    # halves fill the whole), so dropping repeats on either side leaves one pair.
    is_match = iou >= MATCH_IOU
    p, t, iou = p[is_match], t[is_match], iou[is_match]
    for labels in (0, 1):
        first = np.unique((p, t)[labels], return_index=True)[1]
        p, t, iou = p[first], t[first], iou[first]
    return Overlaps(p_area, t_area, p, t, iou, owner_of_p, owner_of_t)


def _list_pairs(
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


def _without_background(is_any: BoolArray) -> BoolArray:
    is_any[0] = False
    return is_any
