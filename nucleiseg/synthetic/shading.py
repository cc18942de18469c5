"""The brightness of nuclei: thickness, nucleoli and chromatin."""

import cv2
import numpy as np
from numpy.typing import NDArray

from nucleiseg.synthetic.settings import FieldSettings, draw_around


def draw_shade(
    mask: NDArray[np.uint8],
    dome: float,
    rng: np.random.Generator,
    settings: FieldSettings,
) -> NDArray[np.float32]:
    """Shade a nucleus: thinner and so dimmer to its edge, darker in its nucleoli."""
    # Measured to the pressed outline, which leaves a faint valley between neighbours.
    depth_px = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    thin = 1 - depth_px / max(float(depth_px.max()), 1.0)
    shade = draw_around(1.0, settings.brightness_spread, rng) * (1 - dome * thin**2)
    if rng.random() < settings.nucleoli_share:
        ys, xs = np.nonzero(depth_px > 0.45 * depth_px.max())
        y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
        for _ in range(rng.integers(1, 4)):
            at = rng.integers(len(ys))
            width_px = rng.uniform(0.1, 0.2) * float(depth_px.max()) + 0.6
            apart = ((y - ys[at]) ** 2 + (x - xs[at]) ** 2) / (2 * width_px**2)
            shade *= 1 - rng.uniform(0.1, 0.4) * np.exp(-apart)
    return np.asarray(shade, np.float32)


def draw_texture(
    shape: tuple[int, int],
    diameter_px: float,
    rng: np.random.Generator,
    settings: FieldSettings,
) -> NDArray[np.float32]:
    """Draw chromatin as a factor around 1, fine grains on coarse patches."""
    strength = min(draw_around(settings.texture, 0.6, rng), 0.6)
    waves = np.zeros(shape, np.float32)
    for scale, weight in ((0.05, 0.8), (0.14, 0.6)):
        grain_px = max(scale * diameter_px, 0.8)
        noise = rng.standard_normal(shape, np.float32)
        # Blurred white noise has deviation 1 / (2 √π σ): bring it back to 1.
        smooth = cv2.GaussianBlur(noise, (0, 0), grain_px)
        waves += weight * 2 * np.sqrt(np.pi) * grain_px * smooth
    return np.asarray(np.exp(strength * waves), np.float32)
