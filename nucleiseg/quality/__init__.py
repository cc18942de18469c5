"""How far an image's count can be trusted: flags, and a calibrated confidence.

:func:`measure_image` takes from an image, and from where its nuclei are, sums that say
something of focus, light and structure; :func:`find_flags` makes words of them.
:class:`Calibration` turns the score of a nucleus into how often such nuclei are right.
Limits and calibrations come from real images with labels; no network is known here.
"""

from nucleiseg.quality.blur import estimate_blur, estimate_noise
from nucleiseg.quality.calibration import Calibration
from nucleiseg.quality.flags import (
    FLAGS,
    QualityLimits,
    find_contrast,
    find_edge_contrast,
    find_flags,
    find_gaussianity,
    find_skewness,
)
from nucleiseg.quality.measures import Measures, measure_image

__all__ = [
    "FLAGS",
    "Calibration",
    "Measures",
    "QualityLimits",
    "estimate_blur",
    "estimate_noise",
    "find_contrast",
    "find_edge_contrast",
    "find_flags",
    "find_gaussianity",
    "find_skewness",
    "measure_image",
]
