"""What a microscope makes of the nuclei: debris, haze, blur, background and noise."""

import cv2
import numpy as np
from numpy.typing import NDArray

from nucleiseg.synthetic.settings import FieldSettings, draw_around


def add_debris(
    signal: NDArray[np.float32], rng: np.random.Generator, debris: float
) -> None:
    """Add faint specks that are no nuclei, in place."""
    height, width = signal.shape
    for _ in range(rng.poisson(debris * signal.size / 128**2)):
        y, x = int(rng.integers(height)), int(rng.integers(width))
        size_px = int(rng.integers(1, 4))
        window = signal[y : y + size_px, x : x + size_px]
        np.maximum(window, rng.uniform(0.02, 0.15), out=window)


def image_light(
    light: NDArray[np.float32],
    diameter_px: float,
    rng: np.random.Generator,
    settings: FieldSettings,
) -> NDArray[np.float32]:
    """Blur the light of the nuclei, add haze and background, tilt the illumination."""
    height, width = light.shape
    # More blur than this and neighbours are one: nobody could have labelled them.
    blur_px = draw_around(settings.blur_px, settings.blur_spread, rng)
    blur_px = min(blur_px, 0.12 * diameter_px)
    haze = settings.haze * rng.gamma(3.0, 1 / 3)
    veil = _draw_veil(light, diameter_px, rng)
    if blur_px > 0:
        light = cv2.GaussianBlur(light, (0, 0), blur_px)
    background_grey = draw_around(
        settings.background_grey, settings.background_spread, rng
    )
    slope = settings.gradient * rng.standard_normal(2) / 2
    y, x = np.ogrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    tilt = np.maximum(1 + slope[0] * y + slope[1] * x, 0.2)
    total = (background_grey + (1 - haze / 2) * light + haze * veil) * tilt
    return np.asarray(total, np.float32)


def _draw_veil(
    light: NDArray[np.float32], diameter_px: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Spread light into haze."""
    height, width = light.shape
    # Haze is so smooth that a quarter of the resolution holds it, in a tenth of the
    # time.
    small = (-(-width // 4), -(-height // 4))
    veil = cv2.resize(light, small, interpolation=cv2.INTER_AREA)
    veil = cv2.GaussianBlur(veil, (0, 0), 0.4 * diameter_px / 4)
    # Cytoplasm holds some dye: the haze is mottled rather than even.
    mottle = cv2.GaussianBlur(rng.standard_normal(veil.shape, np.float32), (0, 0), 1.5)
    veil *= np.exp(1.5 * mottle)
    wide = cv2.resize(veil, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(wide, np.float32)


def expose(
    light: NDArray[np.float32], rng: np.random.Generator, settings: FieldSettings
) -> NDArray[np.uint8]:
    """Turn light, in grey levels, into an 8-bit image with photon and read noise."""
    exposed: NDArray[np.float64] = light.astype(np.float64)
    gain_grey = draw_around(settings.photon_gain_grey, 0.7, rng)
    if gain_grey > 0:
        exposed = gain_grey * rng.poisson(exposed / gain_grey).astype(np.float64)
    exposed += settings.read_noise_grey * rng.standard_normal(light.shape)
    return np.clip(np.rint(exposed), 0, 255).astype(np.uint8)
