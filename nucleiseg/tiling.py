"""Images of any size into tiles of one shape and back, with context.

An image that fits is padded to a multiple of 16. A larger one is cut into tiles:

    |<------- tile ------->|
    |<- core ->|<-context->|           first tile
          |<-context->|<- core ->|<-context->|       inner tiles
                            |<-context->|<-- core -->|   last tile

Neighbouring cores meet in the middle of what two tiles share, so that every output
pixel comes from the tile that saw most around it.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import SIDE_MULTIPLE


@dataclass(frozen=True)
class Tile:
    """One tile: where it lies, and which part of its output is used."""

    origin: tuple[int, int]
    """Row and column of its first pixel in the padded image, multiples of 16."""
    core: tuple[slice, slice]
    """Rows and columns of the padded image whose output this tile gives."""


@dataclass(frozen=True)
class Tiling:
    """How images of one shape are cut.

    Examples
    --------
    >>> Tiling((128, 100), tile_px=512, context_px=64).tile_shape
    (128, 112)
    >>> len(Tiling((1000, 700), tile_px=512, context_px=64).tiles)
    6
    """

    image_shape: tuple[int, int]
    tile_px: int
    context_px: int

    @cached_property
    def padded_shape(self) -> tuple[int, int]:
        """Height and width after padding to multiples of 16."""
        height, width = self.image_shape
        return _round_up(height), _round_up(width)

    @cached_property
    def tile_shape(self) -> tuple[int, int]:
        """Height and width of every tile."""
        height, width = self.padded_shape
        return min(height, self.tile_px), min(width, self.tile_px)

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """All tiles, row by row; their cores cover the padded image once."""
        rows, columns = (
            _cut(length, tile, self.context_px)
            for length, tile in zip(self.padded_shape, self.tile_shape, strict=True)
        )
        return tuple(
            Tile((top, left), (row_core, column_core))
            for top, row_core in rows
            for left, column_core in columns
        )

    def split(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Cut an image, padded by reflection, into its tiles.

        Parameters
        ----------
        image : (H, W) float32 ndarray
            Of this tiling's image shape.

        Returns
        -------
        list of (tile height, tile width) float32 ndarray
            In the order of :attr:`tiles`.
        """
        if image.shape != self.image_shape:
            raise ValueError(f"image is {image.shape}, expected {self.image_shape}")
        margins = [
            (0, padded - side)
            for padded, side in zip(self.padded_shape, self.image_shape, strict=True)
        ]
        padded = np.pad(image, margins, mode="reflect")
        height, width = self.tile_shape
        return [
            padded[top : top + height, left : left + width]
            for top, left in (tile.origin for tile in self.tiles)
        ]

    def join(self, outputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Put the outputs of all tiles together, without the padding.

        Parameters
        ----------
        outputs : sequence of (tile height, tile width) float32 ndarray
            In the order of :attr:`tiles`.

        Returns
        -------
        (H, W) float32 ndarray
        """
        joined = np.empty(self.padded_shape, dtype=np.float32)
        for tile, output in zip(self.tiles, outputs, strict=True):
            inside = tuple(
                slice(core.start - start, core.stop - start)
                for core, start in zip(tile.core, tile.origin, strict=True)
            )
            joined[tile.core] = output[inside]
        height, width = self.image_shape
        return joined[:height, :width]


def _round_up(length: int) -> int:
    return -(-length // SIDE_MULTIPLE) * SIDE_MULTIPLE


def _cut(length: int, tile: int, context: int) -> list[tuple[int, slice]]:
    """Origins and cores along one axis of a padded image."""
    if length <= tile:
        return [(0, slice(0, length))]
    last = length - tile
    origins = [*range(0, last, tile - 2 * context), last]
    # Both ends of what two neighbours share are multiples of 16: so is the middle
    # of an even number of them, and of an odd one it is a multiple of 8.
    seams = [
        (following + previous + tile) // 2
        for previous, following in itertools.pairwise(origins)
    ]
    starts, stops = [0, *seams], [*seams, length]
    return [
        (origin, slice(start, stop))
        for origin, start, stop in zip(origins, starts, stops, strict=True)
    ]
