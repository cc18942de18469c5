"""What one image and its labels hold: range, hash, label values, diameter."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.archives import Reader
from nucleiseg.config import PreprocessConfig
from nucleiseg.dataset.label_values import LabelValues, find_label_values
from nucleiseg.dataset.sources import Source
from nucleiseg.dataset.targets import median_diameter
from nucleiseg.errors import ArchiveError
from nucleiseg.preprocess import Range, RangeFinder, find_range

HASH_BYTES = 16
_MIDDLE_PX = 4096

Pair = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Facts:
    """See :class:`nucleiseg.dataset.survey.Survey`, of one image."""

    value_range: Range
    extremes: tuple[float, float]
    digest: bytes
    labels: LabelValues
    diameter: float


def find_facts(
    source: Source, index: int, pair: Pair, preprocess: PreprocessConfig
) -> Facts:
    """Find the facts of an image and its labels (H, W), held in memory.

    Raises
    ------
    ArchiveError
        The image cannot be normalised, or the labels are none; the dataset and the
        index in it are named.
    """
    image, labels = pair
    with _naming(source.name, index):
        value_range = find_range(image, preprocess)
    digest = _start_digest(image.shape)
    digest.update(_canonical(image))
    extremes = float(image.min()), float(image.max())
    values = find_label_values([labels], name=f"{source.masks_name}: image {index}")
    diameter = median_diameter(labels, is_mask=values.may_be_mask)
    return Facts(value_range, extremes, digest.digest(), values, diameter)


@dataclass(frozen=True)
class LargeImages:
    """Images of a source too large for memory: the same facts, by stretches of rows."""

    source: Source
    images: Reader
    masks: Reader
    bytes_at_once: int
    check: Callable[[], None]
    """Called before each stretch is read; what it raises ends the search."""

    def find_facts(self, index: int, preprocess: PreprocessConfig) -> Facts:
        """Find the facts of one image, as the function of this name."""
        shape = self.images.info.image_shape
        digest = _start_digest(shape)
        finder = RangeFinder(self.images.info.dtype, preprocess)
        lows, highs = [], []
        for part in self._read_rows(self.images, index):
            with _naming(self.source.name, index):
                finder.add(part)
            digest.update(_canonical(part))
            lows.append(float(part.min()))
            highs.append(float(part.max()))
        if finder.needs_second_pass:
            finder.second_pass()
            for part in self._read_rows(self.images, index):
                finder.add(part)
        with _naming(self.source.name, index):
            value_range = finder.find()
        values = find_label_values(
            self._read_rows(self.masks, index),
            name=f"{self.source.masks_name}: image {index}",
        )
        middle = self.masks.read_region(index, *map(_find_middle, shape))
        diameter = median_diameter(middle, is_mask=values.may_be_mask)
        extremes = min(lows), max(highs)
        return Facts(value_range, extremes, digest.digest(), values, diameter)

    def _read_rows(self, reader: Reader, index: int) -> Iterator[NDArray[Any]]:
        height, width = reader.info.image_shape
        row_bytes = width * np.dtype(reader.info.dtype).itemsize
        n_rows = max(1, self.bytes_at_once // row_bytes)
        for start in range(0, height, n_rows):
            self.check()
            stop = min(start + n_rows, height)
            yield reader.read_region(index, (start, stop), (0, width))


@contextlib.contextmanager
def _naming(name: str, index: int) -> Iterator[None]:
    try:
        yield
    except ArchiveError as error:
        raise ArchiveError(f"{name}: image {index}: {error}") from error


def _find_middle(side: int) -> tuple[int, int]:
    start = max(0, (side - _MIDDLE_PX) // 2)
    return start, min(start + _MIDDLE_PX, side)


def _start_digest(shape: tuple[int, ...]) -> "hashlib.blake2b":
    # The shape, too: not all images of zeros are the same.
    return hashlib.blake2b(repr(tuple(shape)).encode(), digest_size=HASH_BYTES)


def _canonical(pixels: NDArray[Any]) -> memoryview:
    """Give equal bytes for equal values: of any dtype, and -0.0 as 0.0."""
    return (pixels.astype(np.float32) + np.float32(0)).data.cast("B")
