"""Training input: labelled images, their split, and batches as pure functions.

Batch k of a training depends on the seed and on k alone, never on what ran before:
whoever is interrupted goes on with the batches that were to come.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.archives import find_images, find_labels, open_reader
from nucleiseg.config import (
    SIDE_MULTIPLE,
    DataConfig,
    PreprocessConfig,
    TrainingConfig,
)
from nucleiseg.devices import import_tensorflow
from nucleiseg.errors import ArchiveError, ConfigError
from nucleiseg.preprocess import normalise


@dataclass(frozen=True)
class LabelledShapes:
    """What the headers of a labelled archive say, without its images."""

    path: Path
    images_key: str
    masks_key: str
    n_images: int
    image_shape: tuple[int, int]


@dataclass(frozen=True)
class LabelledImages:
    """Images ready for the network, and their labels."""

    images: NDArray[np.float32]
    """(N, H, W), normalised."""
    labels: NDArray[Any]
    """(N, H, W) as stored: masks of 0/1 or instance labels, 0 = background."""

    def masks(self, chosen: NDArray[np.intp]) -> NDArray[np.float32]:
        """Masks of some images, (n, H, W) float32, 0 or 1."""
        return (self.labels[chosen] > 0).astype(np.float32)


def inspect_labelled(data: DataConfig) -> LabelledShapes:
    """Check a labelled archive by its headers.

    Raises
    ------
    ConfigError
        No archive is configured.
    ArchiveError
        It cannot be read, or images and masks do not fit each other or the network.
    """
    if data.archive is None:
        raise ConfigError(
            "data.archive is not set; add it to the configuration or use "
            "--set data.archive=FILE (an .npz or HDF5 file with images and masks)"
        )
    path = Path(data.archive)
    images, masks = find_images(path, data.images), find_labels(path, data.masks)
    for key, found in (("images", images), ("masks", masks)):
        if len(found) != 1:
            names = ", ".join(info.key for info in found)
            raise ArchiveError(
                f"{path}: data.{key} = {getattr(data, key)!r} names {len(found)} "
                f"datasets ({names}); training takes one"
            )
    image, mask = images[0], masks[0]
    sizes = [(info.n_images, *info.image_shape) for info in (image, mask)]
    if sizes[0] != sizes[1]:
        raise ArchiveError(
            f"{path}: images {image.key} are {sizes[0]}, masks {mask.key} are "
            f"{sizes[1]}; they must be the same (N, H, W)"
        )
    if any(side % SIDE_MULTIPLE for side in image.image_shape):
        raise ArchiveError(
            f"{path}: images {image.key} are {image.image_shape} pixels; training "
            f"takes sides that are multiples of {SIDE_MULTIPLE}: crop or pad them"
        )
    return LabelledShapes(path, image.key, mask.key, image.n_images, image.image_shape)


def read_labelled(
    shapes: LabelledShapes, preprocess: PreprocessConfig
) -> LabelledImages:
    """Read and normalise all images of a labelled archive."""
    with open_reader(shapes.path, shapes.images_key) as reader:
        stored = reader.read(0, shapes.n_images)
        images = np.empty(stored.shape, dtype=np.float32)
        for index, image in enumerate(stored):
            try:
                images[index] = normalise(image, preprocess)
            except ArchiveError as error:
                raise ArchiveError(
                    f"{shapes.path}:{shapes.images_key}: image {index}: {error}"
                ) from error
    with open_reader(shapes.path, shapes.masks_key) as reader:
        labels = reader.read(0, shapes.n_images)
    if not labels.any():
        raise ArchiveError(
            f"{shapes.path}:{shapes.masks_key} holds no nucleus: all values are 0; "
            "training takes masks with 1, or labels from 1 on, where nuclei are"
        )
    return LabelledImages(images, labels)


def split_indices(
    n_images: int, data: DataConfig
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split images into training and validation as scikit-learn does (N3).

    Returns
    -------
    training, validation : (n,) intp ndarray
        Indices in the split's order: indexing with them gives the same arrays as
        passing the images to `train_test_split`.

    Raises
    ------
    ArchiveError
        Too few images for both parts.
    """
    from sklearn.model_selection import train_test_split

    try:
        training, validation = train_test_split(
            np.arange(n_images),
            test_size=data.validation_share,
            random_state=data.split_seed,
        )
    except ValueError as error:
        raise ArchiveError(
            f"{data.archive} holds {n_images} images, too few to split into training "
            "and validation; add images or change data.validation_share"
        ) from error
    return training, validation


@dataclass(frozen=True)
class BatchOrder:
    """Which images form which batch."""

    n_images: int
    batch_size: int
    shuffle: bool
    seed: int

    @property
    def n_batches(self) -> int:
        """Batches an epoch; the last may be smaller."""
        return -(-self.n_images // self.batch_size)

    def indices(self, batch: int) -> NDArray[np.intp]:
        """Images of a batch, numbered from the first epoch's first on."""
        epoch, position = divmod(batch, self.n_batches)
        order = (
            np.random.default_rng([self.seed, epoch]).permutation(self.n_images)
            if self.shuffle
            else np.arange(self.n_images)
        )
        start = position * self.batch_size
        return order[start : start + self.batch_size]


def training_order(
    n_images: int, training: TrainingConfig, n_replicas: int
) -> BatchOrder:
    """Order the training images; see :func:`usable_images` for several replicas."""
    return BatchOrder(
        usable_images(n_images, n_replicas),
        training.batch_size,
        training.shuffle,
        training.seed,
    )


def usable_images(n_images: int, n_replicas: int) -> int:
    """Count the images that every replica gets an equal share of.

    A last batch that does not split evenly gives images unequal weight, and one with
    fewer images than replicas crashes Keras; the rest, fewer than the replicas, is
    left out.
    """
    return n_images - n_images % n_replicas


def make_batches(
    labelled: LabelledImages,
    selection: NDArray[np.intp],
    order: BatchOrder,
    *,
    first_batch: int,
    n_batches: int,
) -> Any:
    """Make the tf.data pipeline of a range of batches.

    Parameters
    ----------
    labelled : LabelledImages
        All images.
    selection : (n,) intp ndarray
        The images of this part of the split; `order` counts within it.
    order : BatchOrder
    first_batch, n_batches : int
        The range, numbered over all epochs.

    Returns
    -------
    tf.data.Dataset
        Of pairs (B, H, W, 1) float32: images and masks.
    """
    tensorflow = import_tensorflow()
    height, width = labelled.images.shape[1:]

    def gather(batch: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        chosen = selection[order.indices(int(batch))]
        return (
            labelled.images[chosen, ..., np.newaxis],
            labelled.masks(chosen)[..., np.newaxis],
        )

    def load(batch: Any) -> tuple[Any, Any]:
        # Stateless: a stateful function would be run serially, without prefetching,
        # under deterministic operations.
        pair = tensorflow.numpy_function(
            gather, [batch], (tensorflow.float32, tensorflow.float32), stateful=False
        )
        for part in pair:
            part.set_shape((None, height, width, 1))
        return tuple(pair)

    return (
        tensorflow.data.Dataset.range(first_batch, first_batch + n_batches)
        .map(load, num_parallel_calls=2, deterministic=True)
        .prefetch(2)
    )
