"""Images enlarged or reduced, so that their nuclei are as large as the network's."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

# Scales are powers of 2^(1/4): few shapes to compile, and two estimates of nearly the
# same diameter are mostly the same scale.
_STEPS_AN_OCTAVE = 4
_LARGEST = 4.0
# Nuclei so much smaller or larger than the network's are left as they are: it has
# learnt them, and what is not interpolated is sharpest.
_LEFT_ALONE = (0.7, 1.5)
# An enlarged image is 60 bytes a pixel on its way to its nuclei.
_MOST_PIXELS = 2**25


def choose_scale(diameter_px: float, wanted_px: float, *, share: float = 1.0) -> float:
    """Choose by how much images are enlarged.

    Parameters
    ----------
    diameter_px : float
        Typical diameter of their nuclei.
    wanted_px : float
        That of the network's.
    share : float
        How much of the way there is gone, by powers (`preprocess.rescaling`); more
        where nuclei would not come within half to twice the wanted diameter.

    Returns
    -------
    float
        A power of 2^(1/4) from 1/4 to 4; 1 where the nuclei have 0.7 to 1.5 times the
        wanted diameter.

    Examples
    --------
    >>> choose_scale(13, 26), choose_scale(24, 26), choose_scale(300, 26)
    (2.0, 1.0, 0.25)
    >>> choose_scale(6.5, 26, share=0.5), choose_scale(13, 26, share=0.5)
    (2.0, 1.4142135623730951)
    """
    if _LEFT_ALONE[0] <= diameter_px / wanted_px <= _LEFT_ALONE[1]:
        return 1.0
    way = math.log2(wanted_px / diameter_px)
    # A network that knows more than one diameter knows half and twice of it.
    gone = math.copysign(max(share * abs(way), abs(way) - 1), way)
    step = round(_STEPS_AN_OCTAVE * gone)
    return float(min(max(2 ** (step / _STEPS_AN_OCTAVE), 1 / _LARGEST), _LARGEST))


def limit_scale(scale: float, image_shape: tuple[int, int]) -> float:
    """Enlarge an image less where it would get too large for memory.

    Returns
    -------
    float
        The scale, or the next smaller step that gives no more than 2^25 pixels, but
        1 at least.
    """
    if scale <= 1:
        return scale
    room = math.log2(_MOST_PIXELS / (image_shape[0] * image_shape[1])) / 2
    # Just below a step, what is computed may be just below what is meant.
    most = math.floor(_STEPS_AN_OCTAVE * room + 1e-6)
    return float(min(scale, 2 ** (max(0, most) / _STEPS_AN_OCTAVE)))


def scaled_shape(image_shape: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width of an image after scaling, one pixel at least."""
    height, width = (max(1, round(side * scale)) for side in image_shape)
    return height, width


def rescale(image: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Enlarge or reduce a normalised image.

    Parameters
    ----------
    image : (H, W) float32 ndarray
        The whole image: its edges become the edges of the result.
    shape : (int, int)
        Of the result.

    Returns
    -------
    (h, w) float32 ndarray
        Means over areas where it is reduced, else interpolated linearly. The image
        itself where it has the shape.
    """
    if image.shape == shape:
        return image
    is_reduced = shape[0] * shape[1] < image.size
    way = cv2.INTER_AREA if is_reduced else cv2.INTER_LINEAR
    resized = cv2.resize(image, (shape[1], shape[0]), interpolation=way)
    return np.asarray(resized, dtype=np.float32)
