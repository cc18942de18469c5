"""From the number of a batch to its crops and targets, in plain NumPy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.augmentation import (
    Turn,
    Warp,
    change_values,
    changes_values,
    draw_geometry,
    moves_pixels,
)
from nucleiseg.config import AugmentationConfig
from nucleiseg.dataset.blocks import Pixels
from nucleiseg.dataset.labelled import Labelled
from nucleiseg.dataset.order import BatchOrder
from nucleiseg.dataset.parts import Part, count_crops, scale_shape
from nucleiseg.dataset.sources import Span
from nucleiseg.dataset.stores import Store
from nucleiseg.dataset.targets import label_components, targets
from nucleiseg.preprocess import scale

# Tells the generator of a crop from those of orders.
_CROP = 1

FloatImage = NDArray[np.float32]
Crop = tuple[FloatImage, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Gatherer:
    """Makes batches of a part; for any number of threads.

    Whatever is random comes from the seed, the epoch and the crop's place within it,
    so that no batch depends on which others were made before.
    """

    labelled: Labelled
    part: Part
    order: BatchOrder
    store: Store
    augmentation: AugmentationConfig

    def gather(self, batch: int) -> tuple[FloatImage, FloatImage]:
        """Make a batch: images (B, H, W, 1), and targets (B, H, W, channels).

        Of a mask the nuclei are the connected components.
        """
        images, labels = self.gather_labels(batch)
        head = self.labelled.head
        if head != "mask":
            crops = self.order.indices(batch)
            for place, image in enumerate(self.part.crop_images[crops].tolist()):
                if self.labelled.is_mask(image):
                    labels[place] = label_components(labels[place])
        return images[..., np.newaxis], targets(labels, head)

    def gather_labels(self, batch: int) -> Crop:
        """Make a batch of images (B, H, W), normalised, and of labels (B, H, W)."""
        epoch, position = divmod(batch, self.order.n_batches)
        crops = self.order.indices(batch)
        blocks = self.labelled.blocks.find(self.part.crop_images[crops])
        images = np.empty((crops.size, *self.labelled.image_shape), np.float32)
        labels: list[NDArray[Any]] = []
        with self.store.open_batch(batch) as get:
            for place, crop in enumerate(crops.tolist()):
                pixels = get(int(blocks[place]))
                number = position * self.order.batch_size + place
                image, label = self.make_crop(crop, pixels, epoch, number)
                images[place] = image
                labels.append(label)
        return images, np.stack(labels)

    def make_crop(self, crop: int, pixels: Pixels, epoch: int, number: int) -> Crop:
        """Make one crop (H, W), and its labels, as the `number`-th of an epoch."""
        image = int(self.part.crop_images[crop])
        source = self.labelled.shapes.find_source(image)
        image_shape = self.labelled.shapes.sources[source].image_shape
        shape = self.labelled.image_shape
        (scale_factor,) = self.part.get_scales(np.array([image]))
        rng = np.random.default_rng([self.order.seed, epoch, number, _CROP])
        corner = self._place(crop, source, scale_factor, rng)
        value_range = self.labelled.survey.get_range(image)

        def read(rows: Span, columns: Span) -> Crop:
            part, labels = pixels.read(image, rows, columns)
            return scale(part, value_range), labels

        geometry: Turn | Warp = Turn(0, is_mirrored=False)
        if moves_pixels(self.augmentation) or scale_factor != 1:
            geometry = draw_geometry(self.augmentation, rng, shape, scale=scale_factor)
        if isinstance(geometry, Warp):
            centre = _find_centre(corner, shape, scale_factor)
            found = _warp(geometry, read, centre, image_shape)
        else:
            found = _cut(read, corner, shape, image_shape)
            if geometry != Turn(0, is_mirrored=False):
                found = geometry.apply(found[0]), geometry.apply(found[1])
        if changes_values(self.augmentation):
            unit = self._find_unit(image)
            values = change_values(found[0], self.augmentation, rng, value_range=unit)
            found = values, found[1]
        return found

    def _place(
        self,
        crop: int,
        source: int,
        scale_factor: float,
        rng: np.random.Generator,
    ) -> tuple[int, int]:
        """Find the first row and column of a crop: 0 where the image is smaller.

        Both are those of the enlarged image.
        """
        stored_shape = self.labelled.shapes.sources[source].image_shape
        image_shape = scale_shape(stored_shape, scale_factor)
        spare = [
            max(0, side - wanted)
            for side, wanted in zip(image_shape, self.labelled.image_shape, strict=True)
        ]
        if not any(spare):
            return 0, 0
        if self.part.is_random:
            return int(rng.integers(spare[0] + 1)), int(rng.integers(spare[1] + 1))
        _, n_columns = count_crops(self.labelled.shapes, source, scale_factor)
        places = divmod(int(self.part.crop_numbers[crop]), n_columns)
        top, left = (
            min(place * wanted, most)
            for place, wanted, most in zip(
                places, self.labelled.image_shape, spare, strict=True
            )
        )
        return top, left

    def _find_unit(self, image: int) -> tuple[float, float]:
        """Find the values of a normalised image that count as 0 and 1."""
        if self.labelled.preprocess.normalisation == "none":
            low, high = self.labelled.survey.extremes[image]
            return float(low), float(high)
        return 0.0, 1.0


def _cut(
    read: Callable[[Span, Span], Crop],
    corner: tuple[int, int],
    shape: tuple[int, int],
    image_shape: tuple[int, int],
) -> Crop:
    """Cut a crop; what lies beyond a smaller image is mirrored at its border."""
    spans = [
        (start, min(start + wanted, side))
        for start, wanted, side in zip(corner, shape, image_shape, strict=True)
    ]
    image, labels = read(spans[0], spans[1])
    if image.shape == shape:
        return image, labels
    beyond = [(0, wanted - had) for wanted, had in zip(shape, image.shape, strict=True)]
    return np.pad(image, beyond, mode="reflect"), np.pad(labels, beyond, mode="reflect")


def _find_centre(
    corner: tuple[int, int], shape: tuple[int, int], scale_factor: float
) -> tuple[float, float]:
    """Find where in the stored image the centre of a crop lies, px.

    The corner is that in the enlarged image; edges of pixels lie half a pixel before
    their centres in both.
    """
    row, column = (
        (start + side / 2) / scale_factor - 0.5
        for start, side in zip(corner, shape, strict=True)
    )
    return row, column


def _warp(
    warp: Warp,
    read: Callable[[Span, Span], Crop],
    centre: tuple[float, float],
    image_shape: tuple[int, int],
) -> Crop:
    """Make a crop through a map, out of a region as large as the map needs."""
    rows, columns = warp.find_region(centre, image_shape)
    image, labels = read(rows, columns)
    return warp.apply(
        image, labels, centre=(centre[0] - rows[0], centre[1] - columns[0])
    )
