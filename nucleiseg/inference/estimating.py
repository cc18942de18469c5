"""How large the nuclei of images are, found with the network itself.

The network knows nuclei of about its own diameter. Windows are predicted at several
scales, and that scale is right at which nuclei of that size explain most::

    scale                          1/4    1/2     1      2      4
    median diameter found, px       9     11     15     23    5..30
    share in nuclei of the size    .19    .31    .58   1.00    .66   (network: 26 px)

Where images are reduced too far, blurred clumps come out too small, and where they are
enlarged too far, the texture of nuclei: both in shapes the network is less sure of.

Each image has one vote, however much is found in it: the texture of a single one,
enlarged, may fill it with small "nuclei" that would outweigh all true ones.
"""

import itertools
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
# An image with so many nuclei at a scale has half its say there, and from so many at
# its best scale on its vote is a whole one.
_FEW = 5
# An image with so many nuclei has half of the most weight in the diameter.
_SOME = 20
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
class _Found:
    """What was found in one image at one scale."""

    score: float
    """How much of it is explained by nuclei of the network's diameter."""
    nuclei: NDArray[np.void]
    """Those that may be measured, of _NUCLEUS; diameters in pixels of the windows."""


@dataclass(frozen=True)
class _Trial:
    """What was found in all images at one scale."""

    scale: float
    found: tuple[_Found, ...]

    @property
    def n_nuclei(self) -> int:
        """Of all images."""
        return sum(len(one.nuclei) for one in self.found)


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
    votes = _weigh_images(trials)
    best = max(trials, key=lambda trial: _count_votes(trial, votes))
    finer = [best.scale / _FINER, best.scale * _FINER]
    trials = [try_scale(scale) for scale in finer if _COARSE[0] < scale < _COARSE[-1]]
    best = max([best, *trials], key=lambda trial: _count_votes(trial, votes))
    found = _measure_diameter(best)
    if found.diameter_px is None:
        return found
    factor = found.diameter_px * best.scale / wanted_px
    if not 1 / _MOST_MISFIT < factor < _MOST_MISFIT:
        # Noise, or nuclei beyond all scales: what was found there is not credible.
        return Estimate(None, found.n_nuclei)
    return found


def _weigh_images(trials: Sequence[_Trial]) -> NDArray[np.float64]:
    """Find by what the scores of each image are multiplied to be one vote.

    Its best score is worth 1, less where that rests on a few nuclei, and nothing where
    none were found.
    """
    weights = []
    for found in zip(*(trial.found for trial in trials), strict=True):
        best = max(found, key=lambda one: one.score)
        vote = min(1.0, len(best.nuclei) / _FEW)
        weights.append(vote / best.score if best.score > 0 else 0.0)
    return np.array(weights)


def _count_votes(trial: _Trial, weights: NDArray[np.float64]) -> float:
    if trial.n_nuclei < _LEAST_NUCLEI:
        return 0.0  # no diameter could be measured there
    return float(weights @ [found.score for found in trial.found])


def _measure_diameter(trial: _Trial) -> Estimate:
    """Take the median of all nuclei, of which no image has many more than others."""
    if trial.n_nuclei < _LEAST_NUCLEI:
        return Estimate(None, trial.n_nuclei)
    nuclei = np.concatenate([found.nuclei for found in trial.found])
    totals = [found.nuclei["weight"].sum() for found in trial.found]
    shares = [
        found.nuclei["weight"] / (total + _SOME)
        for found, total in zip(trial.found, totals, strict=True)
    ]
    median_px = _weighted_median(nuclei["diameter"], np.concatenate(shares))
    return Estimate(median_px / trial.scale, len(nuclei))


def _try_scale(
    images: Sequence[FloatImage],
    scale: float,
    predict: Predict,
    settings: InstancesConfig,
    wanted_px: float,
) -> _Trial:
    n_each = max(1, _N_WINDOWS // len(images))
    windows = [cut_windows(image, scale, n_each) for image in images]
    flat = [window for cut in windows for window in cut]
    outputs = predict(np.stack([pad_window(window) for window in flat]))
    measured = iter(
        [
            _measure_nuclei(maps[: window.shape[0], : window.shape[1]], settings)
            for window, maps in zip(flat, outputs, strict=True)
        ]
    )
    found = []
    for cut in windows:
        nuclei = np.concatenate(list(itertools.islice(measured, len(cut))))
        n_pixels = sum(window.size for window in cut)
        found.append(_judge(nuclei, n_pixels, wanted_px))
    return _Trial(scale, tuple(found))


def _judge(nuclei: NDArray[np.void], n_pixels: int, wanted_px: float) -> _Found:
    distance = np.log(nuclei["diameter"] / wanted_px)
    nearness = np.exp(-0.5 * (distance / _DEVIATION) ** 2)
    says = float((nuclei["weight"] * nuclei["evidence"] * nearness).sum())
    near = nuclei[np.abs(distance) < math.log(_MOST_FACTOR)]
    return _Found(says / n_pixels * len(near) / (len(near) + _FEW), near)


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
