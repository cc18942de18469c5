"""Which labelled datasets there are, by their headers."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from nucleiseg.archives import DatasetInfo, find_images, find_labels, fingerprint
from nucleiseg.config import SIDE_MULTIPLE, DataConfig
from nucleiseg.dataset.pairing import pair_keys
from nucleiseg.errors import ArchiveError, ConfigError

Span = tuple[int, int]
"""Start and stop of rows or columns, px."""


@dataclass(frozen=True)
class Source:
    """A dataset of images and the one of their labels."""

    path: Path
    images: DatasetInfo
    masks: DatasetInfo
    weight: float
    """How often its crops are shown each epoch."""
    is_validation: bool
    """Whether it was given for validation only."""

    @property
    def name(self) -> str:
        """For messages: `ARCHIVE:KEY` of its images."""
        return f"{self.path}:{self.images.key}"

    @property
    def place(self) -> tuple[Path, str]:
        """Where its images are: the same for all names of the file and the dataset."""
        return self.path.resolve(), self.images.alias_of or self.images.key

    @property
    def masks_name(self) -> str:
        """For messages: `ARCHIVE:KEY` of its labels."""
        return f"{self.path}:{self.masks.key}"

    @property
    def n_images(self) -> int:
        """Number of images."""
        return self.images.n_images

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.images.image_shape

    @property
    def is_deflated(self) -> bool:
        """Whether reading any of it is inflating a piece of an npz member."""
        return any(
            info.storage.startswith("deflated") for info in (self.images, self.masks)
        )

    @property
    def image_bytes(self) -> int:
        """Of one image and its labels, as stored."""
        height, width = self.image_shape
        item = (
            np.dtype(self.images.dtype).itemsize + np.dtype(self.masks.dtype).itemsize
        )
        return height * width * item


@dataclass(frozen=True)
class LabelledShapes:
    """What the headers of the labelled archives say, without their images.

    Images are numbered over all sources, in their order.
    """

    sources: tuple[Source, ...]
    image_shape: tuple[int, int]
    """Of what the network sees: crops, or whole images."""
    crop_px: int | None

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Number of each source's first image; behind the last, that of all images."""
        return (0, *np.cumsum([source.n_images for source in self.sources]).tolist())

    @property
    def n_images(self) -> int:
        """All images."""
        return self.starts[-1]

    @property
    def n_bytes(self) -> int:
        """All images and labels, as stored."""
        return sum(source.n_images * source.image_bytes for source in self.sources)

    @property
    def path(self) -> str:
        """For messages: the archives."""
        return ", ".join(map(str, self._paths))

    @property
    def _paths(self) -> list[Path]:
        return list(dict.fromkeys(source.path for source in self.sources))

    def fingerprint(self) -> str:
        """Fingerprint all archives, 32 hexadecimal digits."""
        found = [fingerprint(path) for path in self._paths]
        if len(found) == 1:
            return found[0]
        return hashlib.sha256(" ".join(found).encode()).hexdigest()[:32]

    def name_image(self, number: int) -> str:
        """For messages: dataset and index of an image."""
        place = self.find_source(number)
        index = number - self.starts[place]
        return f"{self.sources[place].name}: image {index}"

    def find_source(self, number: int) -> int:
        """Find the source of an image."""
        return int(np.searchsorted(self.starts, number, side="right")) - 1


def inspect_labelled(data: DataConfig) -> LabelledShapes:
    """Check the labelled archives by their headers.

    Raises
    ------
    ConfigError
        No archive is configured.
    ArchiveError
        One cannot be read, or images and masks do not fit each other or the network.
    """
    if data.archive is None:
        raise ConfigError(
            "data.archive is not set; add it to the configuration or use "
            "--set data.archive=FILE (an .npz or HDF5 file with images and masks)"
        )
    path = Path(data.archive)
    sources = _find_sources(path, data.images, data.masks, weight=data.weight)
    for other in data.more:
        sources += _find_sources(
            Path(other.archive or data.archive),
            other.images,
            other.masks,
            weight=other.weight,
        )
    if data.validation_images is not None:
        apart = _find_sources(
            Path(data.validation_archive or data.archive),
            data.validation_images,
            data.validation_masks or data.masks,
            is_validation=True,
        )
        # The keys for training may be a glob that matches all.
        taken = {source.place for source in apart}
        sources = [source for source in sources if source.place not in taken]
        if not sources:
            raise ArchiveError(
                f"{path}: all images are data.validation_images, and none are left to "
                "train on; change data.images or data.validation_images"
            )
        sources += apart
    _refuse_doubles(sources)
    shape = _find_shape(sources, data.crop_px)
    return LabelledShapes(tuple(sources), shape, data.crop_px)


def _find_sources(
    path: Path,
    images_key: str,
    masks_key: str,
    *,
    weight: float = 1.0,
    is_validation: bool = False,
) -> list[Source]:
    images, masks = find_images(path, images_key), find_labels(path, masks_key)
    return [
        Source(path, image, mask, weight, is_validation)
        for image, mask in _pair(path, images, masks, (images_key, masks_key))
    ]


def _pair(
    path: Path,
    images: Sequence[DatasetInfo],
    masks: Sequence[DatasetInfo],
    patterns: tuple[str, str],
) -> list[tuple[DatasetInfo, DatasetInfo]]:
    """Pair images and labels by what the wildcards of their keys stand for."""
    if len(images) == len(masks) == 1:
        pairs = [(images[0], masks[0])]
    else:
        by_key = {info.key: info for info in masks}
        keys = pair_keys(str(path), [info.key for info in images], [*by_key], patterns)
        pairs = [(one, by_key[key]) for one, key in zip(images, keys, strict=True)]
    for image, mask in pairs:
        sizes = [(info.n_images, *info.image_shape) for info in (image, mask)]
        if sizes[0] != sizes[1]:
            raise ArchiveError(
                f"{path}: images {image.key} are {sizes[0]}, masks {mask.key} are "
                f"{sizes[1]}; they must be the same (N, H, W)"
            )
    return pairs


def _refuse_doubles(sources: Sequence[Source]) -> None:
    seen = set()
    for source in sources:
        if source.place in seen:
            raise ArchiveError(
                f"{source.name} is named twice; name it once, with another weight"
            )
        seen.add(source.place)


def _find_shape(sources: Sequence[Source], crop_px: int | None) -> tuple[int, int]:
    """Find the shape of what the network sees."""
    if crop_px is not None:
        return crop_px, crop_px
    first = sources[0]
    for source in sources:
        if any(side % SIDE_MULTIPLE for side in source.image_shape):
            raise ArchiveError(
                f"{source.path}: images {source.images.key} are {source.image_shape} "
                f"pixels; training takes sides that are multiples of {SIDE_MULTIPLE}: "
                "crop or pad them, or set data.crop_px"
            )
        if source.image_shape != first.image_shape:
            raise ArchiveError(
                f"{source.name} are {source.image_shape} pixels, those of {first.name} "
                f"{first.image_shape}; set data.crop_px to train on crops of one size"
            )
    return first.image_shape
