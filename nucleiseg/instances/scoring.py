"""Scores of nuclei: how sure the network was of each of them.

The score is the mean of the marker map over a nucleus' pixels. It tells right nuclei
from wrong ones better than their foreground probability does, which is as high where
two nuclei are taken for one; where there is no marker map, that is what there is. Sums
are exact (see `sums`), so that parts of a nucleus add up.
"""

import numpy as np
from numpy.typing import NDArray

from nucleiseg.instances.labelling import measure_areas
from nucleiseg.instances.maps import split_maps
from nucleiseg.instances.sums import UNIT, sum_by_label
from nucleiseg.quality import Calibration

Plane = NDArray[np.float32]


def score_nuclei(
    maps: NDArray[np.float32], labels: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Score each nucleus of a label image.

    Parameters
    ----------
    maps : (H, W, C) float32 ndarray, in [0, 1]
        The network's output: foreground probability, and marker map where C = 2.
    labels : (H, W) int32 ndarray
        0 = background, 1…n = nuclei.

    Returns
    -------
    (n,) float64 ndarray, in [0, 1]
        NaN for a number that no pixel has.
    """
    n_labels = int(labels.max(initial=0)) + 1
    sums = sum_scores(*split_maps(maps), labels, n_labels)
    return _divide(sums, measure_areas(labels, n_labels))[1:]


def sum_scores(
    foreground: Plane, marker: Plane | None, labels: NDArray[np.int32], n_labels: int
) -> NDArray[np.int64]:
    """Sum over the pixels of each label what scores are the mean of.

    Parameters
    ----------
    foreground, marker : (H, W) float32 ndarray, in [0, 1]
        C-contiguous; no marker where the network gives none.
    labels : (H, W) int32 ndarray
        C-contiguous; 0 = background, 1…n_labels - 1 = labels.
    n_labels : int

    Returns
    -------
    (n_labels,) int64 ndarray
        In units of 2^-30, exact; 0 for the background.
    """
    # Markers may be low anywhere within a nucleus.
    plane = foreground if marker is None else marker
    return sum_by_label(plane, labels, n_labels, threshold=0.0)


def find_shares(
    sums: NDArray[np.int64], areas: NDArray[np.int64], calibration: Calibration
) -> NDArray[np.float64]:
    """Find how often nuclei like these are right.

    Parameters
    ----------
    sums, areas : (n,) int64 ndarray
        Of each nucleus: of :func:`sum_scores`, and pixels.
    calibration : Calibration

    Returns
    -------
    (n,) float64 ndarray, in [0, 1]
    """
    return calibration.apply(_divide(sums, areas))


def sum_rights(
    sums: NDArray[np.int64], areas: NDArray[np.int64], calibration: Calibration | None
) -> int:
    """Sum up how often nuclei like these are right.

    Parameters
    ----------
    sums, areas : (n,) int64 ndarray
        Of each nucleus: of :func:`sum_scores`, and pixels.
    calibration : Calibration or None

    Returns
    -------
    int
        In units of 2^-30, the same in whatever order; 0 without a calibration.
    """
    if calibration is None:
        return 0
    shares = find_shares(sums, areas, calibration)
    return sum(np.rint(shares / UNIT).astype(np.int64).tolist())


def find_rights(
    planes: tuple[Plane, Plane | None],
    labels: NDArray[np.int32],
    keep: NDArray[np.bool_],
    calibration: Calibration | None,
) -> int:
    """Sum up how often the nuclei of an image are right.

    Parameters
    ----------
    planes : (foreground, marker)
        Of :func:`split_maps`.
    labels : (H, W) int32 ndarray
        C-contiguous; 0 = background, 1…n = nuclei.
    keep : (n + 1,) bool ndarray
        Nuclei to sum over.
    calibration : Calibration or None

    Returns
    -------
    int
        In units of 2^-30; 0 without a calibration.
    """
    if calibration is None:
        return 0
    sums = sum_scores(*planes, labels, len(keep))
    areas = measure_areas(labels, len(keep))
    return sum_rights(sums[keep], areas[keep], calibration)


def _divide(sums: NDArray[np.int64], areas: NDArray[np.int64]) -> NDArray[np.float64]:
    scores = np.full(len(sums), np.nan)
    np.divide(sums * UNIT, areas, out=scores, where=areas > 0)
    return scores
