"""What speaks against trusting an image's count, in words."""

import math
from dataclasses import dataclass

from nucleiseg.quality.blur import estimate_blur
from nucleiseg.quality.measures import Measures

# Below so much of an image's level, what varies in it is float32's rounding.
_LEAST_VARIATION = 1e-6

FLAGS = ("inverted", "empty", "out_of_focus", "saturated", "foreign_scale")
"""All that there are."""


@dataclass(frozen=True)
class QualityLimits:
    """Where a measure becomes a flag; chosen on real images, see `benchmark flags`."""

    edge_contrast: float = 2.25
    """Slope at the nuclei's outlines by that of the background: in images of nothing
    but noise outlines are as steep as all else, at most 2.2 times."""
    gaussian: float = 0.7
    """Mean absolute value by root mean square of the middle band: 0.80 of noise of any
    kind, less where few pixels hold most of the detail."""
    skewness: float = -0.5
    """Of the smoothed image's values, as where most pixels are bright and few dark."""
    contrast: float = 1.5
    """Nuclei by the rest, in standard deviations of the smoothed image: 1.6 and more
    of bright ones, less where a network takes parts of a bright ground for nuclei."""
    foreground_share: float = 0.5
    """Some networks take all the ground between dark nuclei for nuclei,"""
    nucleus_share: float = 0.025
    """and these are large: mean area by that of the image."""
    blur: float = 0.52
    """Width of the edges by the root of the nuclei's diameter, px^0.5: a blur of 2 px
    at 15 px, of 3.7 px at 50 px. Not by the diameter itself, because what blur joins
    is large."""
    saturated_share: float = 0.15
    """Share of the nuclei's pixels at the image's largest value."""
    scale_margin: float = 1.25
    """Factor beyond the diameters of the validation images."""


DEFAULT_LIMITS = QualityLimits()


def find_flags(
    measures: Measures,
    *,
    count: int,
    diameters_px: tuple[float, float] | None = None,
    scale: float = 1.0,
    limits: QualityLimits = DEFAULT_LIMITS,
) -> str:
    """Find what speaks against trusting the count of an image.

    Parameters
    ----------
    measures : Measures
        Of the image, as stored, and its nuclei.
    count : int
        Nuclei.
    diameters_px : (float, float), optional
        Typical diameters that the network knows, px as it sees them; by default no
        scale is foreign.
    scale : float
        By how much the network saw the image enlarged.
    limits : QualityLimits

    Returns
    -------
    str
        Names joined by `;`, "" where nothing is wrong:

        `inverted`
            Nuclei are darker than the background.
        `empty`
            There are no nuclei, or nothing rises above the noise.
        `out_of_focus`
            Edges are wide for nuclei of this size.
        `saturated`
            Nuclei are cut off at the image's largest value.
        `foreign_scale`
            The network was made for smaller or larger nuclei.

        What is empty or inverted has no other flag: what was found in it are no nuclei.
    """
    if count and _is_noise(measures, limits):
        return "empty"
    if _is_inverted(measures, count, limits):
        return "inverted"
    if not count:
        return "empty"
    diameter_px = 2 * math.sqrt(measures.n_inside / count / math.pi)
    found = {
        "out_of_focus": _is_blurred(measures, diameter_px, limits),
        "saturated": (measures.n_highest > limits.saturated_share * measures.n_inside),
        "foreign_scale": _is_foreign(diameter_px * scale, diameters_px, limits),
    }
    return ";".join(name for name, is_true in found.items() if is_true)


def _is_inverted(measures: Measures, count: int, limits: QualityLimits) -> bool:
    contrast = find_contrast(measures)
    if contrast is not None and contrast < 0:
        return True
    skewness = find_skewness(measures)
    if skewness is None or skewness >= limits.skewness:
        return False
    share = measures.n_inside / measures.n_pixels
    return (
        contrast is None
        or contrast < limits.contrast
        or (share > limits.foreground_share and share > limits.nucleus_share * count)
    )


def find_contrast(measures: Measures) -> float | None:
    """Find how much brighter nuclei are than the rest; None without either.

    Returns
    -------
    float or None
        In standard deviations of the smoothed image.
    """
    n_outer = measures.n_pixels - measures.n_inside
    deviation = math.sqrt(_find_variance(measures))
    if not (measures.n_inside and n_outer and deviation):
        return None
    inner = measures.inside_sum / measures.n_inside
    outer = (measures.value_sum - measures.inside_sum) / n_outer
    return (inner - outer) / deviation


def _find_variance(measures: Measures) -> float:
    """Find the variance of the smoothed image; 0 where it is rounding, or no band."""
    n = measures.n_middle
    if not n:
        return 0.0
    square = measures.smooth_square / n
    variance = square - (measures.smooth_sum / n) ** 2
    return variance if variance > _LEAST_VARIATION**2 * square else 0.0


def find_skewness(measures: Measures) -> float | None:
    """Find the skewness of the smoothed image; None where it is constant or small."""
    variance = _find_variance(measures)
    if not variance:
        return None
    n = measures.n_middle
    mean, square = measures.smooth_sum / n, measures.smooth_square / n
    third = measures.smooth_cube / n - 3 * mean * square + 2 * mean**3
    return float(third / variance**1.5)


def _is_noise(measures: Measures, limits: QualityLimits) -> bool:
    if not measures.n_middle:
        return False
    if not _find_variance(measures):
        return True
    contrast = find_edge_contrast(measures)
    return (
        contrast is not None
        and contrast < limits.edge_contrast
        and find_gaussianity(measures) > limits.gaussian
    )


def find_edge_contrast(measures: Measures) -> float | None:
    """Find how steep outlines are beside the background; None without either."""
    if not (measures.n_outline_fine and measures.outside_slope):
        return None
    outline = measures.outline_slope / measures.n_outline_fine
    return outline / (measures.outside_slope / measures.n_outside_fine)


def find_gaussianity(measures: Measures) -> float:
    """Find the middle band's mean absolute value by its root mean square, 0 to 1."""
    n = measures.n_middle
    return measures.middle_size / n / math.sqrt(measures.middle_energy / n)


def _is_blurred(measures: Measures, diameter_px: float, limits: QualityLimits) -> bool:
    blur_px = estimate_blur(measures)
    return blur_px is not None and blur_px > limits.blur * math.sqrt(diameter_px)


def _is_foreign(
    diameter_px: float,
    known_px: tuple[float, float] | None,
    limits: QualityLimits,
) -> bool:
    if known_px is None:
        return False
    low, high = known_px
    return not (low / limits.scale_margin <= diameter_px <= high * limits.scale_margin)
