"""What fields look like, and how a value is drawn around its median."""

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class FieldSettings:
    """What fields look like; greys are levels of the 8-bit image, 0–255.

    A `…_spread` is the standard deviation of the logarithm, so 0.2 is about 20 %.
    """

    diameter_px: float = 22.0
    """Median over fields of the typical nucleus diameter."""
    diameter_field_spread: float = 0.44
    """How much the typical diameter differs between fields (magnification)."""
    diameter_spread: float = 0.17
    """How much diameters differ within a field."""
    elongation: float = 0.26
    """Median logarithm of the ratio of a nucleus's long to its short axis."""
    roughness: float = 0.035
    """Amplitude of the outline's waves, relative to the radius; 0: ellipses."""
    dented_share: float = 0.15
    """Share of nuclei with one deeper dent (kidney shapes)."""
    density: float = 0.16
    """Mean share of a field's area that nuclei are meant to cover."""
    cluster_share: float = 0.14
    """Share of nuclei placed so that they touch one that is there already."""
    empty_share: float = 0.02
    """Share of fields without any nucleus."""
    brightness_grey: float = 48.0
    """Median over fields of the brightness of nuclei above the background."""
    brightness_field_spread: float = 0.6
    """How much brightness differs between fields (exposure, staining)."""
    brightness_spread: float = 0.2
    """How much brightness differs within a field."""
    condensed_share: float = 0.03
    """Share of small, very bright nuclei (mitotic or dying)."""
    texture: float = 0.18
    """Median strength of the chromatin texture, relative to the brightness."""
    nucleoli_share: float = 0.5
    """Share of nuclei with one to three darker nucleoli."""
    blur_px: float = 1.35
    """Median over fields of the blur's standard deviation."""
    blur_spread: float = 0.4
    """How much blur differs between fields (focus)."""
    haze: float = 0.32
    """Mean brightness of the haze around nuclei, relative to theirs."""
    background_grey: float = 5.0
    """Median over fields of the background level."""
    background_spread: float = 0.65
    """How much the background level differs between fields."""
    gradient: float = 0.15
    """Mean slope of the illumination from one edge to the other, relative."""
    debris: float = 1.5
    """Mean number of faint unlabelled specks per 128 × 128 px."""
    photon_gain_grey: float = 0.035
    """Grey levels a photon adds, median over fields; 0: no shot noise."""
    read_noise_grey: float = 0.3
    """Standard deviation of the camera's noise."""

    def __post_init__(self) -> None:
        """Refuse values that no field can have."""
        for field in fields(self):
            value = getattr(self, field.name)
            highest = 1.0 if field.name.endswith("_share") else np.inf
            if not 0 <= value <= highest or not np.isfinite(value):
                raise ValueError(
                    f"{field.name} is {value}, expected a number from 0 to {highest}"
                )
        if self.diameter_px < 4:
            raise ValueError(f"diameter_px is {self.diameter_px}, expected 4 or more")


DEFAULT_SETTINGS = FieldSettings()
"""Fields like those of the 2018 Data Science Bowl."""


def draw_around(median: float, spread: float, rng: np.random.Generator) -> float:
    """Draw a value of a median and a `…_spread`, log-normally distributed."""
    return median * float(np.exp(spread * rng.standard_normal()))
