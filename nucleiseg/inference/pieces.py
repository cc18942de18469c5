"""Images on their way through a worker, several at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.archives import Reader
from nucleiseg.config import PreprocessConfig
from nucleiseg.errors import ArchiveError
from nucleiseg.inference.outages import refuse_outage
from nucleiseg.preprocess import normalise_stack, rescale
from nucleiseg.tiling import Tiling

# Pixels that are read and normalised at once: 64 images of 128x128, and never less
# than one image. Few calls an image, and still little memory.
_PIECE_PIXELS = 2**20


@dataclass
class Piece:
    """Consecutive images of a dataset."""

    start: int
    """Position of the first in its dataset."""
    pixels: NDArray[Any]
    """(n, H, W), as stored; zeros where an image could not be read."""
    reasons: dict[int, str] = field(default_factory=dict)
    """Why images failed, by position in the piece."""
    tiles: NDArray[np.float32] | None = None
    """(n · tiles an image, height, width), normalised; zeros of a failed image."""
    outputs: NDArray[np.float32] | None = None
    """(n · tiles an image, height, width, C), the network's maps of the tiles."""

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self.pixels)


def divide(
    start: int, stop: int, *, image_pixels: int, multiple: int
) -> Iterator[tuple[int, int]]:
    """Divide a range of images into pieces.

    Parameters
    ----------
    start, stop : int
        The images.
    image_pixels : int
        Pixels of each.
    multiple : int
        Images of a batch: pieces hold whole batches, which then need no copying. The
        first ones hold few, so that the network need not wait for a large one, and so
        do the last ones: what they hold is labelled when the network is done.
    """
    size = max(1, _PIECE_PIXELS // image_pixels)
    size = (
        max(multiple, size - size % multiple)
        if multiple * image_pixels <= (4 * _PIECE_PIXELS)
        else size
    )
    step = min(size, multiple)
    while start < stop:
        half = (stop - start) // 2
        taken = min(step, max(multiple, half - half % multiple))
        yield start, min(start + taken, stop)
        start += taken
        step = size if 2 * step > size else 2 * step


def read_piece(reader: Reader, start: int, stop: int) -> Piece:
    """Read a range; where it is damaged, whatever single images can be read.

    Raises
    ------
    IncompleteError
        The file system is away: no image is at fault.
    """
    try:
        return Piece(start, reader.read(start, stop))
    except ArchiveError as error:
        refuse_outage(error)
        whole = error
    info = reader.info
    piece = Piece(
        start, np.zeros((stop - start, *info.image_shape), dtype=np.dtype(info.dtype))
    )
    if stop - start == 1:
        piece.reasons[0] = whole.reason
        return piece
    for position in range(stop - start):
        single = read_piece(reader, start + position, start + position + 1)
        piece.pixels[position] = single.pixels[0]
        if single.reasons:
            piece.reasons[position] = single.reasons[0]
    return piece


def prepare(piece: Piece, settings: PreprocessConfig, tiling: Tiling) -> Piece:
    """Normalise the images of a piece and cut them into tiles.

    Images of another shape than the tiling's are enlarged or reduced to it.
    """
    values, reasons = normalise_stack(piece.pixels, settings)
    for position, reason in enumerate(reasons):
        if reason is not None:
            # Why it could not be read says more than what was found in its place.
            piece.reasons.setdefault(position, reason)
    if values.shape[1:] != tiling.image_shape:
        values = np.stack([rescale(image, tiling.image_shape) for image in values])
    piece.tiles = tiling.split_stack(values)
    return piece


def join(piece: Piece, tiling: Tiling) -> NDArray[np.float32]:
    """Put together the maps of a piece, (n, H, W, C); H and W are the tiling's."""
    assert piece.outputs is not None
    return tiling.join_stack(piece.outputs)
