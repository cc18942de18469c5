"""Tiles, and blocks of them: what of an image is computed by itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tile:
    """One tile: where it lies, and which part of its output is used."""

    origin: tuple[int, int]
    """Row and column of its first pixel in the padded image, multiples of 16."""
    core: tuple[slice, slice]
    """Rows and columns of the padded image whose output this tile gives."""

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the core within the tile."""
        rows, columns = (
            slice(core.start - start, core.stop - start)
            for core, start in zip(self.core, self.origin, strict=True)
        )
        return rows, columns


@dataclass(frozen=True)
class Block:
    """A rectangle of an image's tiles, which is computed by itself."""

    core: tuple[slice, slice]
    """Rows and columns of the image whose output this block gives."""
    region: tuple[slice, slice]
    """Rows and columns of the image that its tiles see."""
    tiles: tuple[Tile, ...]
    """Its tiles, in coordinates of the padded image, row by row."""
    tile_shape: tuple[int, int]
    """Height and width of every tile."""

    def split(self, part: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Cut the image's region into the block's tiles; see :meth:`Tiling.split`.

        Parameters
        ----------
        part : (h, w) float32 ndarray
            The image's pixels in :attr:`region`. Where tiles reach beyond the image,
            they are filled by reflection, as those of the whole image are.
        """
        expected = tuple(side.stop - side.start for side in self.region)
        if part.shape != expected:
            raise ValueError(f"part is {part.shape}, expected {expected}")
        top, left = (side.start for side in self.region)
        height, width = self.tile_shape
        last = self.tiles[-1].origin
        margins = [
            (0, last[0] + height - self.region[0].stop),
            (0, last[1] + width - self.region[1].stop),
        ]
        padded = np.pad(part, margins, mode="reflect")
        return [
            padded[
                row - top : row - top + height, column - left : column - left + width
            ]
            for row, column in (tile.origin for tile in self.tiles)
        ]

    def join(self, outputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Put the outputs of the block's tiles together.

        Parameters
        ----------
        outputs : sequence of (tile height, tile width, ...) float32 ndarray
            In the order of :attr:`tiles`; with further axes, as channels, or without.

        Returns
        -------
        (h, w, ...) float32 ndarray
            The image's output in :attr:`core`.
        """
        top, left = (side.start for side in self.core)
        bottom, right = (core.stop for core in self.tiles[-1].core)
        channels = outputs[0].shape[2:]
        # Each channel by itself in memory: who labels passes over it several times.
        planes = np.empty((*channels, bottom - top, right - left), dtype=np.float32)
        joined: NDArray[np.float32] = np.moveaxis(planes, (-2, -1), (0, 1))
        for tile, output in zip(self.tiles, outputs, strict=True):
            rows, columns = tile.core
            place = (
                slice(rows.start - top, rows.stop - top),
                slice(columns.start - left, columns.stop - left),
            )
            joined[place] = output[tile.inside]
        return joined[: self.core[0].stop - top, : self.core[1].stop - left]
