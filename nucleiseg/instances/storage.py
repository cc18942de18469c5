"""The bytes of a block: a header, plain arrays, a checksum.

    magic  sizes  thresholds  numbers  measures  wide  flags  sides  CRC-32

All little-endian. Not compressed: what zlib makes depends on its version, and the
same block must give the same bytes on every machine; 16 bytes a pixel of its edges
are few beside its pixels.
"""

import struct
import zlib
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from nucleiseg.quality import Measures

# Its last character is the version.
_MAGIC = b"nucblk3\n"
_N_NUMBERS = 9
_N_MEASURES = len(fields(Measures))
_N_SIDES = 4
# Open nuclei, length of each side, thresholds, numbers, measures.
_HEADER = struct.Struct(f"<8sq{_N_SIDES}q2d{_N_NUMBERS}q{_N_MEASURES}d")
_CHECKSUM = struct.Struct("<I")

Sides = tuple[
    NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]
]
Thresholds = tuple[float, float | None]
Contents = tuple[
    Thresholds, tuple[int, ...], Measures, NDArray[np.int64], NDArray[np.bool_], Sides
]


def pack(
    thresholds: Thresholds,
    numbers: tuple[int, ...],
    measures: Measures,
    wide: NDArray[np.int64],
    flags: NDArray[np.bool_],
    sides: Sides,
) -> bytes:
    """Pack a block.

    Parameters
    ----------
    thresholds : (float, float or None)
        Of the foreground and of the seeds; None without seeds.
    numbers : tuple of 9 int
    measures : Measures
    wide : (3, n) int64 ndarray
        Areas and sums of the open nuclei.
    flags : (2, n) bool ndarray
        Whether each touches the image's edge, and whether it grew from a seed.
    sides : 4 of (length,) int32 ndarray, -n…n
    """
    lengths = [len(side) for side in sides]
    # No threshold is 0.
    pair = (thresholds[0], thresholds[1] or 0.0)
    header = _HEADER.pack(
        _MAGIC, wide.shape[1], *lengths, *pair, *numbers, *measures.as_numbers()
    )
    arrays = [wide.astype("<i8"), flags, *(side.astype("<i4") for side in sides)]
    content = header + b"".join(array.tobytes() for array in arrays)
    return content + _CHECKSUM.pack(zlib.crc32(content))


def unpack(data: bytes) -> Contents:
    """Unpack a block into what :func:`pack` took.

    Raises
    ------
    ValueError
        The bytes are damaged, or another version's.
    """
    if len(data) < _HEADER.size + _CHECKSUM.size:
        raise _damaged(f"{len(data)} bytes are fewer than a header's")
    if data[: len(_MAGIC)] != _MAGIC:
        raise _damaged(f"it begins with {data[: len(_MAGIC)]!r}, expected {_MAGIC!r}")
    end = len(data) - _CHECKSUM.size
    # Before anything in it is believed.
    (expected,) = _CHECKSUM.unpack_from(data, end)
    found = zlib.crc32(memoryview(data)[:end])
    if found != expected:
        raise _damaged(f"its checksum is {found:08x}, expected {expected:08x}")
    _, n_open, *rest = _HEADER.unpack_from(data)
    lengths, rest = rest[:_N_SIDES], rest[_N_SIDES:]
    threshold, seed_threshold, *values = rest
    numbers, measures = values[:_N_NUMBERS], values[_N_NUMBERS:]
    size = _HEADER.size + 26 * n_open + 4 * sum(lengths) + _CHECKSUM.size
    if min(n_open, *lengths) < 0 or len(data) != size:
        raise _damaged(f"it has {len(data)} bytes, expected {size}")
    position = _HEADER.size
    wide = np.frombuffer(data, "<i8", 3 * n_open, position).astype(np.int64)
    position += wide.nbytes
    flags = np.frombuffer(data, np.uint8, 2 * n_open, position) > 0
    position += flags.nbytes
    sides = []
    for length in lengths:
        side = np.frombuffer(data, "<i4", length, position).astype(np.int32)
        if length and not -n_open <= side.min() <= side.max() <= n_open:
            raise _damaged(f"an edge names other than its {n_open} open nuclei")
        sides.append(side)
        position += side.nbytes
    top, bottom, left, right = sides
    return (
        (threshold, seed_threshold or None),
        tuple(numbers),
        Measures.from_numbers(tuple(measures)),
        wide.reshape(3, n_open),
        flags.reshape(2, n_open),
        (top, bottom, left, right),
    )


def _damaged(what: str) -> ValueError:
    return ValueError(
        f"block is damaged or of another version: {what}; compute it anew"
    )
