"""The crops of a part of the split, and which of them an epoch shows."""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleiseg.dataset.blocks import Blocks
from nucleiseg.dataset.sources import LabelledShapes

# Tells the generator of copies from that of the order.
_COPIES = 2

Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Part:
    """Crops to train or to validate on.

    Of an image there are as many as it takes to cover it; their places are drawn anew
    each epoch where `is_random`, else they are a grid.
    """

    shapes: LabelledShapes
    blocks: Blocks
    images: Indices
    """(n,) numbers of the images, in the order they are taken in."""
    is_random: bool
    n_windows: int
    """Stretches that are shuffled each by itself; 1 where all data are held."""
    scales: NDArray[np.float64] | None = None
    """Enlargement of each image, by its number over all; None: none is changed."""

    @property
    def n_images(self) -> int:
        """Images."""
        return int(self.images.size)

    @functools.cached_property
    def crop_images(self) -> Indices:
        """(m,): the image of each crop."""
        return np.repeat(self.images, self._crops_an_image)

    @functools.cached_property
    def crop_numbers(self) -> NDArray[np.int32]:
        """(m,): which of its image's crops each is, from 0."""
        counts = self._crops_an_image
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        return (np.arange(counts.sum()) - starts).astype(np.int32)

    @functools.cached_property
    def _owners(self) -> Indices:
        """(n,): the source of each image."""
        return np.searchsorted(self.shapes.starts, self.images, side="right") - 1

    @property
    def _crops_an_image(self) -> Indices:
        if self.scales is None:
            # By source: lists of all images would leave holes of their size.
            counts = [
                math.prod(count_crops(self.shapes, source))
                for source in range(len(self.shapes.sources))
            ]
            return np.array(counts, dtype=np.intp)[self._owners]
        owners = zip(self._owners.tolist(), self.get_scales(self.images), strict=True)
        return np.array(
            [math.prod(count_crops(self.shapes, *owner)) for owner in owners],
            dtype=np.intp,
        )

    def get_scales(self, images: Indices) -> list[float]:
        """Get the enlargement of images, by their numbers over all."""
        if self.scales is None:
            return [1.0] * len(images)
        return [float(scale) for scale in self.scales[images]]

    @functools.cached_property
    def _copies(self) -> tuple[Indices, list[tuple[Indices, int]]]:
        """Crops that every epoch shows, and those of which it shows some, how many."""
        # To validate on, each once: scores are not to depend on weights.
        weights = np.array(
            [one.weight if self.is_random else 1.0 for one in self.shapes.sources]
        )
        weights = weights[np.repeat(self._owners, self._crops_an_image)]
        crops = np.arange(weights.size)
        always = np.repeat(crops, np.floor(weights).astype(np.intp))
        some = []
        for weight in np.unique(weights):
            rest = crops[weights == weight]
            if weight % 1:
                # At least one: a small archive is not to be left out in silence.
                n_more = max(1, round(float(weight % 1) * rest.size))
                some.append((rest, n_more))
        return always, some

    @property
    def n_crops(self) -> int:
        """Crops an epoch."""
        always, some = self._copies
        return int(always.size) + sum(n_more for _, n_more in some)

    @property
    def is_plain(self) -> bool:
        """Whether an epoch is every crop once, in any order."""
        always, some = self._copies
        return self.n_windows == 1 and not some and always.size == self.crop_images.size

    def draw_crops(self, seed: int, epoch: int) -> Indices:
        """Draw which crops an epoch shows, not yet shuffled; (n_crops,)."""
        always, some = self._copies
        rng = np.random.default_rng([seed, epoch, 0, _COPIES])
        more = [rest[rng.permutation(rest.size)[:n_more]] for rest, n_more in some]
        return np.concatenate([always, *more]) if more else always

    def shuffle(self, crops: Indices, rng: np.random.Generator) -> Indices:
        """Shuffle crops, within windows of as many blocks as fit into memory."""
        crops = crops[rng.permutation(crops.size)]
        if self.n_windows == 1:
            return crops
        blocks = self.blocks.find(self.crop_images[crops])
        present = np.unique(blocks)
        mixed = present[rng.permutation(present.size)]
        n_bytes = np.maximum(self.blocks.n_bytes[mixed], 1)
        before = np.cumsum(n_bytes) - n_bytes
        windows = np.zeros(len(self.blocks.all), dtype=np.intp)
        windows[mixed] = before * self.n_windows // n_bytes.sum()
        return crops[np.argsort(windows[blocks], kind="stable")]


def count_crops(
    shapes: LabelledShapes, source: int, scale: float = 1.0
) -> tuple[int, int]:
    """Count the rows and columns of crops that cover an image of a source."""
    if shapes.crop_px is None:
        return 1, 1
    height, width = scale_shape(shapes.sources[source].image_shape, scale)
    return -(-height // shapes.crop_px), -(-width // shapes.crop_px)


def scale_shape(shape: tuple[int, int], scale: float) -> tuple[int, int]:
    """Enlarge a height and width; at least one pixel."""
    height, width = (max(1, round(side * scale)) for side in shape)
    return height, width
