"""Changes of values; pixels stay where they are."""

import math

import cv2
import numpy as np

from nucleiseg.augmentation.geometry import FloatImage, Rng
from nucleiseg.config import AugmentationConfig

_LEAST_BLUR_PX = 0.2
_BACKGROUND_CELLS = 4


def changes_values(settings: AugmentationConfig) -> bool:
    """Whether any part that changes values is on."""
    factors = (settings.contrast, settings.gamma)
    shares = (
        settings.brightness,
        settings.blur_px,
        settings.noise,
        settings.background,
        settings.inversion,
    )
    return any(factor > 1 for factor in factors) or any(shares)


def change_values(
    image: FloatImage,
    settings: AugmentationConfig,
    rng: Rng,
    *,
    value_range: tuple[float, float] = (0.0, 1.0),
) -> FloatImage:
    """Change the values of a crop as another microscope or exposure might.

    Parameters
    ----------
    image : (H, W) float32 ndarray
    settings : AugmentationConfig
        Only parts that are on draw from `rng`.
    rng : Generator
    value_range : (low, high)
        Of the whole image that the crop is from: the units of the settings. After
        normalisation by percentiles it is 0 to 1.

    Returns
    -------
    (H, W) float32 ndarray
        A new one.
    """
    low, high = value_range
    span = high - low if high > low else 1.0
    values = (image - np.float32(low)) * np.float32(1 / span)
    if settings.inversion and rng.random() < settings.inversion:
        values = 1 - values
    if settings.background:
        values += _draw_background(settings, rng, values.shape)
    if settings.blur_px:
        deviation = settings.blur_px * rng.uniform()
        if deviation > _LEAST_BLUR_PX:
            values = cv2.GaussianBlur(values, (0, 0), deviation)
    if settings.gamma > 1:
        values = _raise(values, settings.gamma ** rng.uniform(-1, 1))
    if settings.contrast > 1 or settings.brightness:
        values = _stretch(values, settings, rng)
    if settings.noise:
        deviation = settings.noise * rng.uniform()
        noise = rng.standard_normal(values.shape, dtype=np.float32)
        noise *= np.float32(deviation)
        values += noise
    if (low, span) != (0.0, 1.0):
        values *= np.float32(span)
        values += np.float32(low)
    return values


def _draw_background(
    settings: AugmentationConfig, rng: Rng, shape: tuple[int, ...]
) -> FloatImage:
    """Draw light that varies smoothly over the crop, 0 or more."""
    amount = settings.background * rng.uniform()
    cells = rng.uniform(0, amount, (_BACKGROUND_CELLS, _BACKGROUND_CELLS))
    # Linear: a cubic curve would fall below 0.
    light = cv2.resize(
        cells.astype(np.float32),
        (shape[1], shape[0]),
        interpolation=cv2.INTER_LINEAR,
    )
    return np.asarray(light, dtype=np.float32)


def _raise(values: FloatImage, power: float) -> FloatImage:
    """Raise distances from 0 to a power; what is below 0 stays there."""
    raised = np.asarray(cv2.pow(np.abs(values), power), dtype=np.float32)
    return np.copysign(raised, values)


def _stretch(values: FloatImage, settings: AugmentationConfig, rng: Rng) -> FloatImage:
    factor, offset = 1.0, 0.0
    if settings.contrast > 1:
        factor = math.exp(math.log(settings.contrast) * rng.uniform(-1, 1))
        offset = float(values.mean()) * (1 - factor)
    if settings.brightness:
        offset += settings.brightness * rng.uniform(-1, 1)
    values *= np.float32(factor)
    values += np.float32(offset)
    return values
