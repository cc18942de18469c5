"""Which crops form which batch: a pure function of the seed and the batch's number."""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import TrainingConfig
from nucleiseg.dataset.parts import Part


@dataclass(frozen=True)
class BatchOrder:
    """Which crops form which batch."""

    n_images: int
    """Crops an epoch."""
    batch_size: int
    shuffle: bool
    seed: int
    part: Part | None = None
    """Needed where it is not every crop once, or more than memory holds."""

    @property
    def n_batches(self) -> int:
        """Batches an epoch; the last may be smaller."""
        return -(-self.n_images // self.batch_size)

    def indices(self, batch: int) -> NDArray[np.intp]:
        """Crops of a batch, numbered from the first epoch's first on."""
        epoch, position = divmod(batch, self.n_batches)
        start = position * self.batch_size
        return self.sequence(epoch)[start : start + self.batch_size]

    def sequence(self, epoch: int) -> NDArray[np.intp]:
        """Crops of an epoch in their order, (n_images,)."""
        # Two parts of two epochs each: an order is asked for once a batch.
        return _make_sequence(self, epoch)


@functools.lru_cache(maxsize=4)
def _make_sequence(order: BatchOrder, epoch: int) -> NDArray[np.intp]:
    rng = np.random.default_rng([order.seed, epoch])
    part = order.part
    if part is None or part.is_plain:
        if not order.shuffle:
            return np.arange(order.n_images)
        return rng.permutation(order.n_images)
    crops = part.draw_crops(order.seed, epoch)
    crops = part.shuffle(crops, rng) if order.shuffle else np.sort(crops)
    return crops[: order.n_images]


def training_order(
    n_images: int, training: TrainingConfig, part: Part | None = None
) -> BatchOrder:
    """Order the training crops: the same whatever the replicas, none left out."""
    return BatchOrder(
        n_images, training.batch_size, training.shuffle, training.seed, part
    )
