"""How HDF5's chunks lie across images, and what reading them costs.

A compressed chunk is inflated whole, whatever is wanted of it. Where chunks span many
images, all chunks of one layer are inflated for any image in it::

    axis 0 →   | layer: chunk_images      | layer              |
               | slab | slab | slab | sl  | slab | slab | ...
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nucleiseg.archives.datasets import drop_channel_axis, is_stack_shape

MAX_KEPT_BYTES = 64 << 20
"""Most of a layer that is kept inflated. It holds the whole layers that h5py chooses
for up to 100,000 images of 128x128 uint8 (51 MB); larger ones are inflated again for
each slab of this size, instead of for each batch."""

_GOOD_CHUNK_BYTES = 1 << 20
_GOOD_TILE_PX = 512


@dataclass(frozen=True)
class ChunkLayout:
    """Shape of a dataset and of its chunks, as stored."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    item_bytes: int
    is_compressed: bool

    @property
    def layer_images(self) -> int:
        """Images that one chunk spans."""
        return self.chunks[0] if is_stack_shape(self.shape) else 1

    @property
    def chunk_bytes(self) -> int:
        """Of one chunk, inflated."""
        return math.prod(self.chunks) * self.item_bytes

    @property
    def layer_bytes(self) -> int:
        """Of all chunks that hold parts of one image, inflated."""
        pairs = list(zip(self.shape, self.chunks, strict=True))
        if is_stack_shape(self.shape):
            pairs = pairs[1:]
        return math.prod(-(-side // chunk) for side, chunk in pairs) * self.chunk_bytes

    @property
    def row_bytes(self) -> int:
        """Of the chunks beside each other in one row of an image, inflated."""
        grey = drop_channel_axis(self.shape)
        axis = len(grey) - 1
        return -(-self.shape[axis] // self.chunks[axis]) * self.chunk_bytes

    @property
    def slab_images(self) -> int:
        """Images to read at once and keep; 1 where nothing is to be kept."""
        if not self.is_compressed or self.layer_images == 1:
            return 1
        image_bytes = math.prod(self.shape[1:]) * self.item_bytes
        return min(self.layer_images, max(1, MAX_KEPT_BYTES // max(1, image_bytes)))

    def find_slab(self, image: int) -> tuple[int, int]:
        """Find the (start, stop) of the slab that holds an image; none spans layers."""
        layer_start = image - image % self.layer_images
        start = image - (image - layer_start) % self.slab_images
        stop = min(start + self.slab_images, layer_start + self.layer_images)
        return start, min(stop, self.shape[0])

    def find_problem(self, key: str) -> str | None:
        """Say in one clause what reading costs, with the remedy; None if it is fair."""
        is_grey = len(drop_channel_axis(self.shape)) in (2, 3)
        if not self.is_compressed or 0 in self.shape or not is_grey:
            return None
        if self.slab_images < min(self.layer_images, self.shape[0]):
            clause = (
                f"one chunk spans {self.layer_images:,} images: "
                f"{self.layer_bytes / 1e6:,.0f} MB are inflated for each "
                f"{self.slab_images:,} images read"
            )
        elif self.chunk_bytes > MAX_KEPT_BYTES:
            clause = (
                f"one chunk holds {self.chunk_bytes / 1e6:,.0f} MB, all of which are "
                "inflated into memory for any part of it"
            )
        else:
            return None
        good = _choose_chunks(self)
        # The slash is no part of h5repack's names.
        return (
            f"{clause}; repack with h5repack -l "
            f"{key.lstrip('/')}:CHUNK={'x'.join(map(str, good))} or write with h5py "
            f"chunks={good}"
        )


def _choose_chunks(layout: ChunkLayout) -> tuple[int, ...]:
    """Choose whole images of up to 1 MB together, or tiles of larger ones."""
    shape = layout.shape
    grey = drop_channel_axis(shape)
    height, width = grey[-2:]
    rest = (1,) * (len(shape) - len(grey))
    image_bytes = height * width * layout.item_bytes
    if image_bytes > 4 * _GOOD_CHUNK_BYTES:
        sides = (min(height, _GOOD_TILE_PX), min(width, _GOOD_TILE_PX))
    else:
        sides = (height, width)
    if len(grey) == 2:
        return (*sides, *rest)
    n_images = min(max(1, _GOOD_CHUNK_BYTES // image_bytes), shape[0])
    return (n_images, *sides, *rest)
