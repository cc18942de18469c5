"""How blurred an image's edges are, from how much detail it has at two scales.

An edge blurred by a Gaussian of s pixels leaves in the band between smoothing by a and
b pixels, per pixel of its length, the energy

    integral (Phi(x / a') - Phi(x / b'))^2 dx
        = (sqrt(2 (a'^2 + b'^2)) - a' - b') / sqrt(pi),   a'^2 = a^2 + s^2

so the ratio of two bands says what s is, whatever the edges' height and number. Noise
adds to each band a known multiple of its variance, which is taken off.
"""

import functools
import math

import numpy as np
from numpy.typing import NDArray

from nucleiseg.quality.measures import Measures

# Variances, px^2, of the smoothing before and behind the fine and the middle band.
_VARIANCES = (1.0, 5.0, 21.0)
# Share of the variance of white noise that each band lets through.
_FINE_NOISE = 0.04027
_MIDDLE_NOISE = 0.00731
# Mean absolute response of the noise filter to noise of standard deviation 1.
_NOISE_RESPONSE = 6 * math.sqrt(2 / math.pi)
# Of a band that seems to be noise, so much is taken for edges all the same: noise is
# known to about a factor of two, and a sharp image must not be called blurred for it.
_LEAST_EDGES = 0.5

_BLURS_PX = np.concatenate([np.arange(0, 12, 0.05), np.arange(12, 60.5, 0.5)])


def estimate_noise(measures: Measures) -> float:
    """Estimate the noise's standard deviation, in the image's units."""
    if not measures.n_outside:
        return 0.0
    return measures.noise_sum / measures.n_outside / _NOISE_RESPONSE


def estimate_blur(measures: Measures) -> float | None:
    """Estimate the width of the edges in an image.

    Returns
    -------
    float or None
        Standard deviation of the blur, px, from 0 to 60; None where there is too
        little structure, or too much noise, to tell.
    """
    if not measures.n_middle:
        return None
    variance = estimate_noise(measures) ** 2
    fine = measures.fine_energy / measures.n_fine
    fine = max(fine - _FINE_NOISE * variance, _LEAST_EDGES * fine)
    middle = measures.middle_energy / measures.n_middle
    middle = middle - _MIDDLE_NOISE * variance
    if middle <= 0:
        return None
    return float(np.interp(fine / middle, *_find_ratios()))


@functools.cache
def _find_ratios() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find what edges of each blur have as ratio of the bands' energies."""
    # Ratios fall with the blur, and interpolation wants them to rise.
    ratios = _edge_energy(0) / _edge_energy(1)
    return ratios[::-1], _BLURS_PX[::-1]


def _edge_energy(band: int) -> NDArray[np.float64]:
    before = np.sqrt(_VARIANCES[band] + _BLURS_PX**2)
    behind = np.sqrt(_VARIANCES[band + 1] + _BLURS_PX**2)
    energy: NDArray[np.float64] = np.sqrt(2 * (before**2 + behind**2)) - before - behind
    return energy
