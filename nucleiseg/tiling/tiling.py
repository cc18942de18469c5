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
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import SIDE_MULTIPLE
from nucleiseg.tiling.block import Block, Tile

_Cut = tuple[int, slice]
"""Along one axis: a tile's origin, and its core in the padded image."""


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
        return _combine(*self._axes)

    @cached_property
    def _axes(self) -> tuple[list[_Cut], list[_Cut]]:
        """Origins and cores of the tiles along both axes."""
        rows, columns = (
            _cut(length, tile, self.context_px)
            for length, tile in zip(self.padded_shape, self.tile_shape, strict=True)
        )
        return rows, columns

    def blocks(self, max_pixels: int) -> tuple[Block, ...]:
        """Divide the tiles into rectangles that are computed one by one.

        For an image that is too large for memory: each block needs only the pixels
        under its tiles, and its output is that of the whole image in its core.

        Parameters
        ----------
        max_pixels : int
            Pixels of a core, about; a block has one tile at least.

        Returns
        -------
        tuple of Block
            Row by row; their cores cover the image once.
        """
        rows, columns = self._axes
        steps = [
            max(1, tile - 2 * self.context_px if len(cuts) > 1 else tile)
            for tile, cuts in zip(self.tile_shape, self._axes, strict=True)
        ]
        # Square where the image allows it: the less context is computed twice.
        n_rows = min(len(rows), max(1, math.isqrt(max_pixels) // steps[0]))
        n_columns = max(1, max_pixels // (n_rows * steps[0]) // steps[1])
        n_columns = min(len(columns), n_columns)
        n_rows = max(n_rows, max_pixels // (n_columns * steps[1]) // steps[0])
        return tuple(
            self._block(rows[top : top + n_rows], columns[left : left + n_columns])
            for top in range(0, len(rows), n_rows)
            for left in range(0, len(columns), n_columns)
        )

    def block_of(self, core: tuple[slice, slice]) -> Block:
        """Find the block with a core, as :meth:`blocks` made it.

        Raises
        ------
        ValueError
            No tiles give exactly these rows and columns.
        """
        chosen = [
            [
                cut
                for cut in cuts
                if side.start <= cut[1].start and min(cut[1].stop, length) <= side.stop
            ]
            for cuts, side, length in zip(
                self._axes, core, self.image_shape, strict=True
            )
        ]
        block = self._block(*chosen) if all(chosen) else None
        if block is None or block.core != core:
            raise ValueError(f"no block of this tiling has the core {core}")
        return block

    def _block(self, rows: Sequence[_Cut], columns: Sequence[_Cut]) -> Block:
        core, region = [], []
        for cuts, tile, side in zip(
            (rows, columns), self.tile_shape, self.image_shape, strict=True
        ):
            core.append(slice(cuts[0][1].start, min(cuts[-1][1].stop, side)))
            region.append(slice(cuts[0][0], min(cuts[-1][0] + tile, side)))
        return Block(
            core=(core[0], core[1]),
            region=(region[0], region[1]),
            tiles=_combine(rows, columns),
            tile_shape=self.tile_shape,
        )

    def split(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cut one image into its tiles; see :meth:`split_stack`."""
        return self.split_stack(image[np.newaxis])

    def join(
        self, outputs: NDArray[np.float32] | Sequence[NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Put the outputs of one image's tiles together; see :meth:`join_stack`."""
        if len(outputs) != len(self.tiles):
            raise ValueError(f"{len(outputs)} outputs, expected {len(self.tiles)}")
        joined: NDArray[np.float32] = self.join_stack(np.asarray(outputs))[0]
        return joined

    def split_stack(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cut images, padded by reflection, into their tiles.

        Parameters
        ----------
        images : (N, H, W) float32 ndarray
            Of this tiling's image shape.

        Returns
        -------
        (N · T, tile height, tile width) float32 ndarray
            The T tiles of the first image in the order of :attr:`tiles`, those of the
            second, and so on. The images themselves where they are tiles already.
        """
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"image is {images.shape[1:]}, expected {self.image_shape}"
            )
        margins = [(0, 0)] + [
            (0, padded - side)
            for padded, side in zip(self.padded_shape, self.image_shape, strict=True)
        ]
        if self.padded_shape != self.image_shape:
            images = np.pad(images, margins, mode="reflect")
        if len(self.tiles) == 1:
            return images
        height, width = self.tile_shape
        tiles = np.stack(
            [
                images[:, top : top + height, left : left + width]
                for top, left in (tile.origin for tile in self.tiles)
            ],
            axis=1,
        )
        return tiles.reshape(-1, height, width)

    def join_stack(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put the outputs of all tiles together, without the padding.

        Parameters
        ----------
        outputs : (N · T, tile height, tile width, ...) float32 ndarray
            In the order of :meth:`split_stack`; with further axes, as channels, or
            without.

        Returns
        -------
        (N, H, W, ...) float32 ndarray
        """
        height, width = self.image_shape
        n_tiles = len(self.tiles)
        if n_tiles == 1:
            return outputs[:, :height, :width]
        n_images = len(outputs) // n_tiles
        channels = outputs.shape[3:]
        by_image = outputs.reshape(n_images, n_tiles, *self.tile_shape, *channels)
        # As in a block, each channel of an image by itself in memory.
        planes = np.empty((n_images, *channels, *self.padded_shape), dtype=np.float32)
        joined: NDArray[np.float32] = np.moveaxis(planes, (-2, -1), (1, 2))
        for number, tile in enumerate(self.tiles):
            joined[:, *tile.core] = by_image[:, number, *tile.inside]
        return joined[:, :height, :width]


def _combine(rows: Sequence[_Cut], columns: Sequence[_Cut]) -> tuple[Tile, ...]:
    """Tiles of all rows and columns, row by row."""
    return tuple(
        Tile((top, left), (row_core, column_core))
        for top, row_core in rows
        for left, column_core in columns
    )


def _round_up(length: int) -> int:
    return -(-length // SIDE_MULTIPLE) * SIDE_MULTIPLE


def _cut(length: int, tile: int, context: int) -> list[_Cut]:
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
