"""What is read at once: neighbouring images of one source, some MB of them."""

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nucleiseg.archives import Reader
from nucleiseg.dataset.readers import Readers
from nucleiseg.dataset.sources import LabelledShapes, Source, Span

_BLOCK_BYTES = 4 << 20
# Whole pieces of 4 MB between two seek points are inflated for any part of them.
_DEFLATED_BLOCK_BYTES = 16 << 20
# At least so many blocks in the memory allowed, or there is little to shuffle.
_LEAST_BLOCKS = 32
_LEAST_DEFLATED_BLOCKS = 16
# More of a compressed chunk is not kept by a reader, either.
_MOST_CHUNK_BYTES = 64 << 20
# Larger images stay where they are, and crops are read out of them.
_DIRECT_BYTES = 64 << 20

Pair = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Block:
    """A range of images of a source."""

    source: Source
    start: int
    """Index of its first image within the source."""
    stop: int
    first: int
    """Number of its first image over all sources."""

    @property
    def is_direct(self) -> bool:
        """Whether it is one image too large to be held."""
        return self.source.image_bytes > _DIRECT_BYTES

    @property
    def n_bytes(self) -> int:
        """Taken in memory when loaded; of a direct one, by what is read for crops."""
        if self.is_direct:
            return _BLOCK_BYTES
        return (self.stop - self.start) * self.source.image_bytes


class Pixels(Protocol):
    """Images and labels of a block, as stored."""

    def read(self, image: int, rows: Span, columns: Span) -> Pair:
        """Read part of an image, by its number over all, and of its labels."""


@dataclass(frozen=True)
class _Held:
    block: Block
    images: NDArray[Any]
    labels: NDArray[Any]

    def read(self, image: int, rows: Span, columns: Span) -> Pair:
        place = image - self.block.first
        part = np.s_[rows[0] : rows[1], columns[0] : columns[1]]
        return self.images[place][part], self.labels[place][part]


@dataclass(frozen=True)
class _Direct:
    block: Block
    readers: Readers

    def read(self, image: int, rows: Span, columns: Span) -> Pair:
        index = image - self.block.first + self.block.start
        with self.readers.lend(self.block.source) as (images, labels):
            return (
                images.read_region(index, rows, columns),
                labels.read_region(index, rows, columns),
            )


def load_block(block: Block, readers: Readers) -> Pixels:
    """Read a block into memory, or see to it that parts of it can be read."""
    if block.is_direct:
        return _Direct(block, readers)
    with readers.lend(block.source) as (images, labels):
        return _Held(block, _read_apart(images, block), _read_apart(labels, block))


def _read_apart(reader: Reader, block: Block) -> NDArray[Any]:
    """Read into memory that goes back to the system as soon as it is free.

    Blocks come and go in several threads; in the heap they would leave holes of their
    own size, and the process would grow with the archive.
    """
    shape = (block.stop - block.start, *reader.info.image_shape)
    n_bytes = math.prod(shape) * np.dtype(reader.info.dtype).itemsize
    # Private: shared memory counts against no limit of the process.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, max(1, n_bytes), flags=flags)
    apart = np.frombuffer(memory, dtype=reader.info.dtype, count=math.prod(shape))
    return reader.read(block.start, block.stop, out=apart.reshape(shape))


class Blocks:
    """All blocks of the labelled images, in the archives' order."""

    def __init__(self, shapes: LabelledShapes, memory_bytes: int) -> None:
        self.all = list(_cut(shapes, memory_bytes))
        self._firsts = np.array([block.first for block in self.all])
        self.n_bytes = np.array([block.n_bytes for block in self.all], dtype=np.int64)

    def find(self, images: NDArray[np.intp]) -> NDArray[np.intp]:
        """Find the block of each image."""
        return np.searchsorted(self._firsts, images, side="right") - 1


def _cut(shapes: LabelledShapes, memory_bytes: int) -> Iterator[Block]:
    stored = min(_BLOCK_BYTES, memory_bytes // _LEAST_BLOCKS)
    deflated = min(_DEFLATED_BLOCK_BYTES, memory_bytes // _LEAST_DEFLATED_BLOCKS)
    for source, first in zip(shapes.sources, shapes.starts[:-1], strict=True):
        wanted_bytes = deflated if source.is_deflated else stored
        n_images = count_together(source, wanted_bytes)
        for start in range(0, source.n_images, n_images):
            stop = min(start + n_images, source.n_images)
            yield Block(source, start, stop, first + start)


def count_together(source: Source, wanted_bytes: int) -> int:
    """Count the images of a source to read at once: whole chunks, about so large."""
    image_bytes = source.image_bytes
    chunk_images = max(source.images.chunk_images, source.masks.chunk_images)
    chunk_images = min(chunk_images, max(1, _MOST_CHUNK_BYTES // image_bytes))
    n_chunks = max(1, wanted_bytes // (chunk_images * image_bytes))
    return int(n_chunks * chunk_images)
