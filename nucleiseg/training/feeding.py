"""Batches on their way to the replicas: weighted, filled up, shared and prefetched."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nucleiseg.config import Config
from nucleiseg.dataset import BatchOrder, Labelled, make_batches
from nucleiseg.devices import import_tensorflow
from nucleiseg.training.replicas import Replicas


@dataclass(frozen=True)
class Feeds:
    """Where batches come from: iterators over those from a step on."""

    order: BatchOrder
    """Of the training images."""
    training: Callable[[int], Iterator[Any]]
    """Given the number of the next step."""
    validation: Callable[[], Iterator[Any]]


def make_feeds(
    config: Config, replicas: Replicas, labelled: Labelled, order: BatchOrder
) -> Feeds:
    """Make the feeds of a training; `order` is that of its training crops."""
    training = config.training
    check = BatchOrder(
        labelled.validation.n_crops, training.batch_size, shuffle=False, seed=0
    )

    def make(batches: Any) -> Iterator[Any]:
        size = training.batch_size
        return iter(feed(batches, replicas, batch_size=size, must_fill=training.xla))

    total = training.epochs * order.n_batches
    return Feeds(
        order,
        training=lambda step: make(
            make_batches(
                labelled,
                labelled.training,
                order,
                first_batch=step,
                n_batches=total - step,
                augmentation=config.augmentation,
            )
        ),
        validation=lambda: make(
            make_batches(
                labelled,
                labelled.validation,
                check,
                first_batch=0,
                n_batches=check.n_batches,
            )
        ),
    )


def feed(batches: Any, replicas: Replicas, *, batch_size: int, must_fill: bool) -> Any:
    """Give each image its weight, and each replica its part of a batch.

    Parameters
    ----------
    batches : tf.data.Dataset
        Of pairs (b, H, W, 1) float32, images and masks, b up to `batch_size`.
    replicas : Replicas
    batch_size : int
    must_fill : bool
        Fill up a smaller batch with black images of weight 0: all batches must have
        one shape. With several replicas they are always filled, so that none is
        without an image.

    Returns
    -------
    tf.data.Dataset or DistributedDataset
        Of triples: images, masks and (B,) float32 weights, which sum to 1 over all
        replicas.
    """
    tensorflow = import_tensorflow()

    def add_weights(images: Any, masks: Any) -> tuple[Any, Any, Any]:
        n_images = tensorflow.shape(images)[0]
        weights = tensorflow.fill([n_images], 1 / tensorflow.cast(n_images, "float32"))
        return images, masks, tensorflow.cast(weights, "float32")

    def fill(*parts: Any) -> tuple[Any, ...]:
        filled = []
        for part in parts:
            n_missing = batch_size - tensorflow.shape(part)[0]
            padding = [[0, n_missing]] + [[0, 0]] * (part.shape.rank - 1)
            part = tensorflow.pad(part, padding)
            filled.append(tensorflow.ensure_shape(part, [batch_size, *part.shape[1:]]))
        return tuple(filled)

    weighted = batches.map(add_weights)
    if must_fill or replicas.strategy is not None:
        weighted = weighted.map(fill)
    if replicas.strategy is not None:
        # Prefetches to the devices by itself.
        return replicas.strategy.experimental_distribute_dataset(weighted)
    weighted = weighted.prefetch(2)
    if replicas.device == "gpu":
        return to_device(weighted, "/GPU:0")
    return weighted


def to_device(batches: Any, device: str) -> Any:
    """Have batches copied to a device before they are asked for."""
    tensorflow = import_tensorflow()
    copy = tensorflow.data.experimental.prefetch_to_device(device, buffer_size=2)
    return batches.apply(copy)
