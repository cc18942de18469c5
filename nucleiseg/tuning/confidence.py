"""What a network's scores of nuclei are worth, judged by labels."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from nucleiseg.evaluation import fit_calibration, measure_reliability
from nucleiseg.instances import restore_maps, score_nuclei
from nucleiseg.metrics import judge_nuclei
from nucleiseg.quality import Calibration

Shares = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Judged:
    """The n nuclei that were found in one image, and which of them are right."""

    scores: Shares
    """(n,) as a calibration takes them."""
    probabilities: Shares
    """(n,) mean foreground probability: the confidence without a calibration."""
    is_right: NDArray[np.bool_]
    """(n,) whether the nucleus matches a true one, IoU of 0.5 or more."""
    diameter_px: float | None
    """Of the true nuclei, as the network sees them; None without any."""


@dataclass(frozen=True)
class Trust:
    """How far a confidence can be believed; 0 would be wholly, of all three."""

    expected_calibration_error: float
    """Mean over the nuclei of |confidence - share right| among the like of them."""
    brier: float
    """Mean over the nuclei of (confidence - 1 or 0)^2."""
    image_error: float
    """Sum over the images of |nuclei expected to be right - right ones|, by nuclei."""

    def as_dict(self) -> dict[str, float]:
        """Values for a file, rounded."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def judge_image(
    maps: NDArray[np.float32],
    labels: NDArray[np.int32],
    truth: NDArray[np.integer],
) -> Judged:
    """Score the nuclei of an image as a count does, and say which are right.

    Parameters
    ----------
    maps : (h, w, C) float32 ndarray, in [0, 1]
        The network's output, of another size where the image was enlarged or reduced.
    labels : (H, W) int32 ndarray
        Nuclei that were found, 0 = background, 1…n.
    truth : (H, W) integer ndarray
        True nuclei, 0 = background.
    """
    restored = restore_maps(maps, labels.shape)
    fates = judge_nuclei(labels, truth)
    diameter_px = None
    if n_true := len(fates.true_labels):
        # Of the mean area, as the flag `foreign_scale` takes it.
        share = np.count_nonzero(truth) / truth.size
        area_px = share * maps.shape[0] * maps.shape[1] / n_true
        diameter_px = 2 * math.sqrt(area_px / math.pi)
    return Judged(
        score_nuclei(restored, labels),
        score_nuclei(np.ascontiguousarray(restored[..., :1]), labels),
        fates.is_right,
        diameter_px,
    )


def calibrate(images: Sequence[Judged]) -> Calibration | None:
    """Fit a calibration; None where no nucleus was found."""
    scores = np.concatenate([one.scores for one in images])
    if not len(scores):
        return None
    diameters = [one.diameter_px for one in images if one.diameter_px is not None]
    return fit_calibration(
        scores,
        np.concatenate([one.is_right for one in images]),
        diameters_px=np.array(diameters),
    )


def measure_trust(images: Sequence[Judged], confidence: Sequence[Shares]) -> Trust:
    """Measure how far a confidence in the nuclei of images holds.

    Parameters
    ----------
    images : sequence of Judged
        At least one nucleus in all.
    confidence : sequence of (n,) float64 ndarray, in [0, 1]
        Of the nuclei of each image.
    """
    found = measure_reliability(
        np.concatenate(confidence), np.concatenate([one.is_right for one in images])
    )
    gaps = (
        abs(float(shares.sum()) - np.count_nonzero(one.is_right))
        for one, shares in zip(images, confidence, strict=True)
    )
    return Trust(
        found.expected_calibration_error,
        found.brier,
        sum(gaps) / sum(len(one.scores) for one in images),
    )
