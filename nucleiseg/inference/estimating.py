"""How large the nuclei of images are, found with the network itself.

The network knows nuclei of about its own diameter. Windows are predicted at several
scales, and that scale is right at which nuclei of that size explain most::

    scale                          1/4    1/2     1      2      4
    median diameter found, px       9     11     15     23    5..30
    share in nuclei of the size    .19    .31    .58   1.00    .66   (network: 26 px)

Where images are reduced too far, blurred clumps come out too small, and where they are
enlarged too far, the texture of nuclei: both in shapes the network is less sure of.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import InstancesConfig
from nucleiseg.inference.windows import cut_windows, pad_window
from nucleiseg.instances import label_nuclei

FloatImage = NDArray[np.float32]
Predict = Callable[[FloatImage], FloatImage]
"""(n, WINDOW_PX, WINDOW_PX) normalised windows to their maps (n, ..., C)."""

_COARSE = (0.25, 0.5, 1.0, 2.0, 4.0)
_FINER = math.sqrt(2)
# Windows at each scale, about: at least one an image.
_N_WINDOWS = 8
# Mean foreground probability over a nucleus that counts.
_LEAST_CONFIDENCE = 0.7
# A nucleus speaks for a scale by how near its diameter is to the network's: this is
# the deviation of a Gaussian in its logarithm, about a factor of 1.5.
_DEVIATION = 0.4
# Beyond this factor it is a speck or a clump, and not measured.
_MOST_FACTOR = 2.5
# A scale with so many nuclei has half its say.
_FEW = 5
_LEAST_NUCLEI = 3
# At the best scale, the diameter that is found is within this factor of the network's.
_MOST_MISFIT = 1.8


@dataclass(frozen=True)
class Estimate:
    """What was found."""

    diameter_px: float | None
    """Median over the nuclei, in pixels of the images; None where there are none."""
    n_nuclei: int
    """Nuclei it was found from."""


@dataclass(frozen=True)
class _Trial:
    """What was found at one scale."""

    scale: float
    score: float
    estimate: Estimate


def estimate_diameter(
    images: Sequence[FloatImage],
    predict: Predict,
    settings: InstancesConfig,
    wanted_px: float,
) -> Estimate:
    """Estimate the typical diameter of the nuclei in images of one dataset.

    Parameters
    ----------
    images : sequence of (H, W) float32 ndarray
        Each normalised by its own range.
    predict : callable
    settings : InstancesConfig
    wanted_px : float
        Diameter that the network knows best.
    """

    def try_scale(scale: float) -> _Trial:
        return _try_scale(images, scale, predict, settings, wanted_px)

    if not images:
        return Estimate(None, 0)
    trials = [try_scale(scale) for scale in _COARSE]
    best = max(trials, key=lambda trial: trial.score)
    finer = [best.scale / _FINER, best.scale * _FINER]
    trials = [try_scale(scale) for scale in finer if _COARSE[0] < scale < _COARSE[-1]]
    best = max([best, *trials], key=lambda trial: trial.score)
    found = best.estimate
    if found.diameter_px is None:
        return found
    factor = found.diameter_px * best.scale / wanted_px
    if not 1 / _MOST_MISFIT < factor < _MOST_MISFIT:
        # Noise, or nuclei beyond all scales: what was found there is not credible.
        return Estimate(None, found.n_nuclei)
    return found


def _try_scale(
    images: Sequence[FloatImage],
    scale: float,
    predict: Predict,
    settings: InstancesConfig,
    wanted_px: float,
) -> _Trial:
    n_each = max(1, _N_WINDOWS // len(images))
    windows = [cut_windows(image, scale, n_each) for image in images]
    flat = [window for found in windows for window in found]
    outputs = predict(np.stack([pad_window(window) for window in flat]))
    found = np.concatenate(
        [
            _measure_nuclei(maps[: window.shape[0], : window.shape[1]], settings)
            for window, maps in zip(flat, outputs, strict=True)
        ]
    )
    n_pixels = sum(window.size for window in flat)
    distance = np.log(found["diameter"] / wanted_px)
    nearness = np.exp(-0.5 * (distance / _DEVIATION) ** 2)
    says = found["weight"] * found["evidence"] * nearness
    near = found[np.abs(distance) < math.log(_MOST_FACTOR)]
    n_nuclei = len(near)
    if n_nuclei < _LEAST_NUCLEI:
        return _Trial(scale, 0.0, Estimate(None, n_nuclei))
    score = float(says.sum()) / n_pixels * n_nuclei / (n_nuclei + _FEW)
    diameter = _weighted_median(near["diameter"], near["weight"]) / scale
    return _Trial(scale, score, Estimate(diameter, n_nuclei))


_NUCLEUS = np.dtype([("diameter", "f8"), ("weight", "f8"), ("evidence", "f8")])


def _measure_nuclei(maps: FloatImage, settings: InstancesConfig) -> NDArray[np.void]:
    """Measure the whole and confident nuclei of a window.

    Returns
    -------
    (n,) ndarray of _NUCLEUS
        Diameter of a circle of its area, px; how many nuclei of its size there are
        for each that no edge of the window cuts (Miles and Lantuéjoul); and its area
        times its highest marker value.
    """
    maps = np.ascontiguousarray(maps)
    if not np.isfinite(maps.max()):
        return np.zeros(0, dtype=_NUCLEUS)
    labels = label_nuclei(maps, settings)
    n_labels = int(labels.max(initial=0)) + 1
    flat = labels.ravel()
    areas = np.bincount(flat, minlength=n_labels)
    sums = np.bincount(flat, maps[..., 0].ravel(), minlength=n_labels)
    markers = np.zeros(n_labels)
    np.maximum.at(markers, flat, maps[..., -1].ravel())
    keep = sums >= _LEAST_CONFIDENCE * areas
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        keep[side] = False
    keep[0] = False
    nuclei = np.zeros(np.count_nonzero(keep), dtype=_NUCLEUS)
    nuclei["diameter"] = np.sqrt(areas[keep] * (4 / np.pi))
    shares = [1 - nuclei["diameter"] / side for side in labels.shape]
    nuclei["weight"] = 1 / np.maximum(shares[0] * shares[1], 0.25)
    nuclei["evidence"] = areas[keep] * markers[keep]
    return nuclei


def _weighted_median(
    values: NDArray[np.float64], weights: NDArray[np.float64]
) -> float:
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(sums, sums[-1] / 2)])
