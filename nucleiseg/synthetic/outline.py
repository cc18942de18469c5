"""The outline of one nucleus."""

import numpy as np
from numpy.typing import NDArray

from nucleiseg.synthetic.settings import FieldSettings, draw_around


def draw_outline(
    diameter_px: float, rng: np.random.Generator, settings: FieldSettings
) -> NDArray[np.uint8]:
    """Draw a wavy ellipse, perhaps dented: a square mask of 0 and 1 around it."""
    radius = 0.5 * draw_around(diameter_px, settings.diameter_spread, rng)
    stretch = np.exp(0.5 * draw_around(settings.elongation, 0.6, rng))
    stretch = min(float(stretch), 1.8)
    half = int(np.ceil(1.2 * radius * stretch)) + 3
    y, x = np.mgrid[-half : half + 1, -half : half + 1] + rng.uniform(-0.5, 0.5)
    turn = rng.uniform(0, np.pi)
    along = (x * np.cos(turn) + y * np.sin(turn)) / (radius * stretch)
    across = (y * np.cos(turn) - x * np.sin(turn)) / (radius / stretch)
    angle = np.arctan2(across, along)
    edge = np.ones_like(angle)
    for order in (2, 3, 4, 5):
        amplitude = settings.roughness * rng.standard_normal() * (2 / order) ** 1.3
        edge += amplitude * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    if rng.random() < settings.dented_share:
        away = 1 - np.cos(angle - rng.uniform(0, 2 * np.pi))
        edge -= rng.uniform(0.15, 0.45) * np.exp(-away / 0.15)
    is_inside = np.hypot(along, across) < np.clip(edge, 0.4, 1.2)
    return np.asarray(is_inside, np.uint8)
