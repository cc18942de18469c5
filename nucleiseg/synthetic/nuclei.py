"""The nuclei of a field, painted one by one, and their labels."""

import cv2
import numpy as np
from numpy.typing import NDArray

from nucleiseg.synthetic.outline import draw_outline
from nucleiseg.synthetic.placement import MIN_AREA_PX, find_place, overlap_windows
from nucleiseg.synthetic.settings import FieldSettings
from nucleiseg.synthetic.shading import draw_shade, draw_texture

_MAX_LABEL = int(np.iinfo(np.uint16).max)


def draw_nuclei(
    shape: tuple[int, int],
    diameter_px: float,
    rng: np.random.Generator,
    settings: FieldSettings,
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Paint nuclei of brightness around 1 on 0, and their labels."""
    signal = np.zeros(shape, np.float32)
    labels = np.zeros(shape, np.uint16)
    n_nuclei = _draw_n_nuclei(shape, diameter_px, rng, settings)
    texture = draw_texture(shape, diameter_px, rng, settings)
    dome = rng.uniform(0.1, 0.6)
    centres: list[NDArray[np.float64]] = []
    for _ in range(n_nuclei):
        is_condensed = rng.random() < settings.condensed_share
        size = 0.65 if is_condensed else 1.0
        mask = draw_outline(size * diameter_px, rng, settings)
        corner = find_place(mask, labels, centres, rng, settings.cluster_share)
        if corner is None:
            continue
        field, patch = overlap_windows(corner, mask.shape, shape)
        mask[patch][labels[field] > 0] = 0
        visible = _largest_piece(mask[patch])
        if np.count_nonzero(visible) < MIN_AREA_PX:
            continue
        glow = rng.uniform(1.5, 3.0) if is_condensed else 1.0
        shade = glow * draw_shade(mask, dome, rng, settings)[patch] * texture[field]
        signal[field][visible] = shade[visible]
        centres.append(np.add(corner, np.divide(mask.shape, 2)))
        labels[field][visible] = len(centres)
    return signal, labels


def _draw_n_nuclei(
    shape: tuple[int, int],
    diameter_px: float,
    rng: np.random.Generator,
    settings: FieldSettings,
) -> int:
    if rng.random() < settings.empty_share or settings.density == 0:
        return 0
    # Nuclei may lie half outside, so they spread over a little more than the field.
    area_px = float(np.prod([side + 0.8 * diameter_px for side in shape]))
    # Fields of small nuclei are less covered, as at low magnification they are.
    zoom = (diameter_px / settings.diameter_px) ** 1.2
    covered = min(zoom * rng.gamma(1.5, settings.density / 1.5), 0.75)
    n_nuclei = max(1, int(rng.poisson(covered * area_px / (0.785 * diameter_px**2))))
    if n_nuclei > _MAX_LABEL:
        raise ValueError(
            f"a field of {shape} px would hold {n_nuclei} nuclei, more than the "
            f"{_MAX_LABEL} of uint16 labels: draw a smaller field"
        )
    return n_nuclei


def _largest_piece(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Keep the largest 8-connected piece of what neighbour and border left over."""
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return np.asarray(pieces == largest)
