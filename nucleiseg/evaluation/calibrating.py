"""From scored nuclei of labelled images to a calibration, and how far it holds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleiseg.quality import Calibration

Scores = NDArray[np.float64]
Flags = NDArray[np.bool_]

_MOST_KNOTS = 20
# In fewer nuclei a share has an error of a tenth or more.
_NUCLEI_A_KNOT = 25
_N_BINS = 10
# Of the labelled images, whose diameters are what a model knows.
_EXTREMES = (1.0, 99.0)
_DECIMALS = 5


@dataclass(frozen=True)
class ReliabilityBin:
    """Nuclei of about the same confidence."""

    n_nuclei: int
    confidence: float
    """Mean of what was expected."""
    share: float
    """Share that is right."""


@dataclass(frozen=True)
class Reliability:
    """How far a confidence says what share is right."""

    bins: tuple[ReliabilityBin, ...]
    """By confidence, about as many nuclei in each."""
    expected_calibration_error: float
    """Mean over the nuclei of |confidence - share right| of their bin."""
    brier: float
    """Mean over the nuclei of (confidence - 1 or 0)^2."""


def fit_calibration(
    scores: Scores,
    is_right: Flags,
    *,
    diameters_px: NDArray[np.float64] | None = None,
) -> Calibration:
    """Fit how often nuclei of a score are right: rising, with few knots.

    Nuclei of similar scores are taken together, with at least 25 in each group, and
    isotonic regression makes the groups' shares rise. A group of n with k right ones
    has the share (k + 1) / (n + 2): no finite number of nuclei proves 0 or 1.

    Parameters
    ----------
    scores : (n,) float64 ndarray, in [0, 1]
        Of :func:`nucleiseg.instances.score_nuclei`, of labelled images.
    is_right : (n,) bool ndarray
        Whether the nucleus matches a true one, IoU of 0.5 or more.
    diameters_px : (m,) float64 ndarray, optional
        Typical diameter of the true nuclei of each image, px as the network sees them.

    Raises
    ------
    ValueError
        There is no nucleus.
    """
    from sklearn.isotonic import IsotonicRegression

    if not len(scores):
        raise ValueError("no nuclei were found to calibrate on; use more images")
    groups = _group(scores, min(_MOST_KNOTS, max(1, len(scores) // _NUCLEI_A_KNOT)))
    means = np.array([scores[group].mean() for group in groups]).round(_DECIMALS)
    knots, places = np.unique(means, return_inverse=True)
    sizes = np.bincount(places, [len(group) for group in groups])
    n_right = np.bincount(places, [is_right[group].sum() for group in groups])
    shares = IsotonicRegression(y_min=0, y_max=1).fit_transform(
        knots, (n_right + 1) / (sizes + 2), sample_weight=sizes
    )
    known = None
    if diameters_px is not None and len(diameters_px):
        low, high = np.percentile(diameters_px, _EXTREMES).round(2).tolist()
        known = (low, high)
    return Calibration(
        tuple(knots.tolist()), tuple(shares.round(_DECIMALS).tolist()), known
    )


def measure_reliability(confidence: Scores, is_right: Flags) -> Reliability:
    """Measure how far the confidence in nuclei says what share of them is right.

    Parameters
    ----------
    confidence : (n,) float64 ndarray, in [0, 1]
        Of :meth:`Calibration.apply`, of other images than those it was fitted on.
    is_right : (n,) bool ndarray

    Raises
    ------
    ValueError
        There is no nucleus.
    """
    if not len(confidence):
        raise ValueError("no nuclei were found to measure on; use more images")
    bins = tuple(
        ReliabilityBin(
            len(group), float(confidence[group].mean()), float(is_right[group].mean())
        )
        for group in _group(confidence, min(_N_BINS, len(confidence)))
    )
    gaps = (one.n_nuclei * abs(one.confidence - one.share) for one in bins)
    return Reliability(
        bins,
        sum(gaps) / len(confidence),
        float(np.mean((confidence - is_right) ** 2)),
    )


def _group(values: Scores, n_groups: int) -> list[NDArray[np.intp]]:
    """Group positions by value, about as many in each."""
    order = np.argsort(values, kind="stable")
    return np.array_split(order, n_groups)
