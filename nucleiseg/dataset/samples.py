"""A few training crops as they were stored and as they are trained on."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import AugmentationConfig
from nucleiseg.dataset.gathering import Gatherer
from nucleiseg.dataset.labelled import Labelled
from nucleiseg.dataset.order import BatchOrder

Sample = tuple[NDArray[np.float32], NDArray[Any], str]


def draw_samples(
    labelled: Labelled,
    order: BatchOrder,
    augmentation: AugmentationConfig,
    *,
    n_crops: int,
    n_epochs: int,
) -> Iterator[Sample]:
    """Draw training crops: each plain, then as it looks in several epochs.

    Yields
    ------
    image : (H, W) float32 ndarray, normalised
    labels : (H, W) ndarray
    title : str
    """
    part = labelled.training
    plain, augmented = (
        Gatherer(labelled, part, order, labelled.held, settings)
        for settings in (AugmentationConfig(), augmentation)
    )
    rng = np.random.default_rng(order.seed)
    n_crops = min(n_crops, part.crop_images.size)
    for crop in rng.permutation(part.crop_images.size)[:n_crops].tolist():
        image = int(part.crop_images[crop])
        block = int(labelled.blocks.find(part.crop_images[[crop]])[0])
        pixels = labelled.load(block)
        yield (
            *plain.make_crop(crop, pixels, 0, crop),
            labelled.shapes.name_image(image),
        )
        for epoch in range(n_epochs):
            pair = augmented.make_crop(crop, pixels, epoch, crop)
            yield (*pair, f"augmented {epoch + 1}")
