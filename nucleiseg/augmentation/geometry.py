"""Where the pixels of a crop come from."""

import functools
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import AugmentationConfig

Rng: TypeAlias = np.random.Generator
FloatImage: TypeAlias = NDArray[np.float32]
Span: TypeAlias = tuple[int, int]

_BORDER = cv2.BORDER_REFLECT_101
# From here on an image is blurred before it is reduced; the Gaussian is as wide as the
# mean over a pixel of the crop.
_LEAST_STEP_PX = 1.25
_BLUR_SHARE = 1 / math.sqrt(12)


@dataclass(frozen=True)
class Turn:
    """A flip and quarter turns: pixels move, values stay."""

    quarters: int
    """Quarter turns, 0 to 3; odd ones for square crops only."""
    is_mirrored: bool

    def apply(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Turn a crop (H, W), mirrored before."""
        if self.is_mirrored:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(np.rot90(pixels, self.quarters))


@dataclass(frozen=True)
class Warp:
    """A map from a crop's pixels to places in the image, from the crop's centre on."""

    rows: FloatImage
    """(H, W), down from the centre, px."""
    columns: FloatImage
    """(H, W), right from the centre, px."""
    step_px: float = 1.0
    """Pixels of the image that a pixel of the crop stands for, along a side."""

    def find_region(
        self, centre: tuple[float, float], image_shape: tuple[int, int]
    ) -> tuple[Span, Span]:
        """Find the part of the image that a crop around `centre` is made of.

        Returns
        -------
        rows, columns : (start, stop)
            Within the image. What lies outside is mirrored at the image's border, and
            what it mirrors is part of the region.
        """
        row_span = _find_span(self.rows, centre[0], image_shape[0])
        return row_span, _find_span(self.columns, centre[1], image_shape[1])

    def apply(
        self,
        image: FloatImage,
        labels: NDArray[Any],
        *,
        centre: tuple[float, float],
    ) -> tuple[FloatImage, NDArray[Any]]:
        """Make the crop from a region; `centre` is the crop's within the region.

        Returns
        -------
        image : (H, W) float32 ndarray
            Interpolated linearly.
        labels : (H, W) ndarray of the labels' dtype
            Of the nearest pixel.
        """
        if self.step_px > _LEAST_STEP_PX:
            # Or noise would be thinned out instead of averaged.
            deviation = _BLUR_SHARE * self.step_px
            image = cv2.GaussianBlur(image, (0, 0), deviation, borderType=_BORDER)
        columns = self.columns + np.float32(centre[1])
        rows = self.rows + np.float32(centre[0])
        # Once in fixed point, for both: half the time, and the same places.
        places, weights = cv2.convertMaps(columns, rows, cv2.CV_16SC2)
        warped = cv2.remap(image, places, weights, cv2.INTER_LINEAR, borderMode=_BORDER)
        nearest = cv2.convertMaps(columns, rows, cv2.CV_16SC2, nninterpolation=True)[0]
        moved = cv2.remap(
            _as_movable(labels), nearest, None, cv2.INTER_NEAREST, borderMode=_BORDER
        )
        return warped, moved.astype(labels.dtype, copy=False)


def moves_pixels(settings: AugmentationConfig) -> bool:
    """Whether any part that moves pixels is on."""
    return settings.flips or settings.quarter_turns or _is_free(settings)


def _is_free(settings: AugmentationConfig) -> bool:
    """Whether pixels come to lie between pixels."""
    return settings.rotation_deg > 0 or settings.scale > 1 or settings.elastic_px > 0


def draw_geometry(
    settings: AugmentationConfig,
    rng: Rng,
    shape: tuple[int, int],
    *,
    scale: float = 1.0,
) -> Turn | Warp:
    """Draw how the pixels of a crop of some shape move.

    Only parts that are on draw from `rng`. `scale` enlarges all crops of the image.
    """
    is_mirrored = bool(settings.flips and rng.random() < 0.5)
    quarters = int(rng.integers(4)) if settings.quarter_turns else 0
    if shape[0] != shape[1]:
        quarters = 2 * (quarters // 2)
    if not _is_free(settings) and scale == 1:
        return Turn(quarters, is_mirrored)
    angle = math.pi / 2 * quarters
    if settings.rotation_deg:
        angle += math.radians(settings.rotation_deg) * rng.uniform(-1, 1)
    # The map is from the crop to the image: an enlarged crop sees less of it.
    step = settings.scale ** rng.uniform(-1, 1) if settings.scale > 1 else 1.0
    step /= scale
    cosine, sine = step * math.cos(angle), step * math.sin(angle)
    sign = -1.0 if is_mirrored else 1.0
    down, right = _make_axes(shape)
    rows = np.float32(cosine) * down + np.float32(sine) * right
    columns = np.float32(-sign * sine) * down + np.float32(sign * cosine) * right
    if settings.elastic_px:
        moves = _draw_moves(settings, rng, shape)
        rows += moves[0]
        columns += moves[1]
    return Warp(rows, columns, step)


@functools.lru_cache(maxsize=8)
def _make_axes(shape: tuple[int, int]) -> tuple[FloatImage, FloatImage]:
    """Make the rows (H, 1) and columns (1, W) of a crop, from its centre on."""
    down, right = (
        np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2) for side in shape
    )
    return down[:, np.newaxis], right[np.newaxis]


def _draw_moves(
    settings: AugmentationConfig, rng: Rng, shape: tuple[int, int]
) -> FloatImage:
    """Draw smooth displacements, (2, H, W) px."""
    amplitude = settings.elastic_px * rng.uniform()
    coarse = [max(2, math.ceil(side / settings.elastic_grid_px) + 1) for side in shape]
    moves = rng.uniform(-amplitude, amplitude, (2, *coarse)).astype(np.float32)
    size = (shape[1], shape[0])
    return np.stack(
        [cv2.resize(move, size, interpolation=cv2.INTER_CUBIC) for move in moves]
    )


def _find_span(places: FloatImage, centre: float, side: int) -> Span:
    """Find the pixels along one axis that places around `centre` are read from."""
    # One pixel more: interpolation looks at the next one.
    least = math.floor(float(places.min()) + centre) - 1
    most = math.ceil(float(places.max()) + centre) + 1
    last = side - 1
    start, stop = least, most
    if least < 0:
        stop = max(stop, -least)
    if most > last:
        start = min(start, 2 * last - most)
    return max(0, start), min(last, stop) + 1


def _as_movable(labels: NDArray[Any]) -> NDArray[Any]:
    """Give labels a dtype that OpenCV moves, without losing a value."""
    kind, size = labels.dtype.kind, labels.dtype.itemsize
    if kind == "b":
        return labels.astype(np.uint8)
    if (kind, size) in (("u", 4), ("i", 8), ("u", 8)):
        # Exact for labels up to 2^53.
        return labels.astype(np.float64)
    if (kind, size) == ("f", 2):
        return labels.astype(np.float32)
    return labels
