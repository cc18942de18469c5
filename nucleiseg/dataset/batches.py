"""Batches as a tf.data pipeline."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.config import AugmentationConfig
from nucleiseg.dataset.gathering import Gatherer
from nucleiseg.dataset.labelled import Labelled
from nucleiseg.dataset.order import BatchOrder
from nucleiseg.dataset.parts import Part
from nucleiseg.dataset.targets import N_CHANNELS
from nucleiseg.devices import available_cores, import_tensorflow
from nucleiseg.errors import NucleisegError

_MOST_THREADS = 16


def make_batches(
    labelled: Labelled,
    part: Part,
    order: BatchOrder,
    *,
    first_batch: int,
    n_batches: int,
    augmentation: AugmentationConfig | None = None,
) -> Any:
    """Make the tf.data pipeline of a range of batches.

    Parameters
    ----------
    labelled : Labelled
    part : Part
        `labelled.training` or `labelled.validation`; `order` counts within it.
    order : BatchOrder
    first_batch, n_batches : int
        The range, numbered over all epochs.
    augmentation : AugmentationConfig, optional
        By default nothing is changed.

    Returns
    -------
    tf.data.Dataset
        Of pairs float32: images (B, H, W, 1) and targets (B, H, W, channels).
    """
    tensorflow = import_tensorflow()
    height, width = labelled.image_shape
    gatherer = Gatherer(
        labelled,
        part,
        order,
        labelled.make_store(part, order, first_batch=first_batch, n_batches=n_batches),
        augmentation or AugmentationConfig(),
    )

    def gather(batch: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        try:
            return gatherer.gather(int(batch))
        except NucleisegError as error:
            labelled.failures.append(error)
            raise

    def load(batch: Any) -> tuple[Any, Any]:
        # Stateless: a stateful function would be run serially, without prefetching,
        # under deterministic operations.
        pair = tensorflow.numpy_function(
            gather, [batch], (tensorflow.float32, tensorflow.float32), stateful=False
        )
        for element, n_channels in zip(
            pair, (1, N_CHANNELS[labelled.head]), strict=True
        ):
            element.set_shape((None, height, width, n_channels))
        return tuple(pair)

    # A small pool: what each thread makes is waiting in memory.
    n_threads = min(max(2, available_cores()), _MOST_THREADS)
    return (
        tensorflow.data.Dataset.range(first_batch, first_batch + n_batches)
        .map(load, num_parallel_calls=n_threads, deterministic=True)
        .prefetch(2)
    )
