"""From stored pixel values to the network's input: normalisation, dtype and scale.

Training, evaluation and prediction call :func:`normalise` with the parameters that
the model bundle keeps, so that the network always sees the same. It is two steps,
:func:`find_range` over the whole image and :func:`scale` of any part of it; for an
image larger than memory :class:`RangeFinder` does the first piece by piece. For a
network of nuclei of one size, :func:`rescale` makes those of an image as large.
"""

from nucleiseg.preprocess.normalisation import (
    find_range,
    normalise,
    normalise_stack,
    scale,
)
from nucleiseg.preprocess.ranges import Range
from nucleiseg.preprocess.rescaling import (
    choose_scale,
    limit_scale,
    rescale,
    scaled_shape,
)
from nucleiseg.preprocess.streaming import RangeFinder

__all__ = [
    "Range",
    "RangeFinder",
    "choose_scale",
    "find_range",
    "limit_scale",
    "normalise",
    "normalise_stack",
    "rescale",
    "scale",
    "scaled_shape",
]
