"""The `.npy` header in front of an array."""

from __future__ import annotations

import io
import math
import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from numpy.lib import format as npy_format

from nucleiseg.archives.failures import give_reason

if TYPE_CHECKING:
    import numpy as np

# NumPy's own limit for archives that are not trusted; ours have some 100 bytes.
_MOST_HEADER_BYTES = 10_000
_MOST_BYTES = 2**63
# NumPy knows strings of any length, kind "T", but saves them as objects.
_KINDS = frozenset("?biufcmMSUVO")

# Version 3 differs from 2 only in the alphabet of field names.
_FORMATS = {
    (1, 0): (struct.Struct("<H"), npy_format.read_array_header_1_0),
    (2, 0): (struct.Struct("<I"), npy_format.read_array_header_2_0),
    (3, 0): (struct.Struct("<I"), npy_format.read_array_header_2_0),
}


@dataclass(frozen=True)
class Header:
    """What the `.npy` header says."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    is_fortran: bool
    n_bytes: int
    """Of the header itself: the array begins behind."""

    @property
    def data_bytes(self) -> int:
        """Of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: IO[bytes]) -> Header:
    """Read the `.npy` header; the stream is then at the array's first byte.

    Raises
    ------
    ValueError
        It is no such header. What the stream raises comes as it is.
    """
    start = _read_exactly(stream, npy_format.MAGIC_LEN)
    version = npy_format.read_magic(io.BytesIO(start))
    if version not in _FORMATS:
        raise ValueError(f"unknown .npy version {version[0]}.{version[1]}")
    length, read = _FORMATS[version]
    start += _read_exactly(stream, length.size)
    (n_bytes,) = length.unpack(start[-length.size :])
    # Damaged, it may promise gigabytes; NumPy reads them all and then refuses.
    if n_bytes > _MOST_HEADER_BYTES:
        raise ValueError(
            f"its .npy header promises {n_bytes:,} bytes, expected at most "
            f"{_MOST_HEADER_BYTES:,}"
        )
    start += _read_exactly(stream, n_bytes)
    rest = io.BytesIO(start[npy_format.MAGIC_LEN :])
    try:
        shape, is_fortran, dtype = read(rest, _MOST_HEADER_BYTES)
    except Exception as error:
        # Of bytes that are no header NumPy and Python's parser raise anything, from
        # IndexError to MemoryError; and nothing but these bytes is read here.
        raise ValueError(f"no .npy header: {give_reason(error)}") from error
    if dtype.kind not in _KINDS:
        raise ValueError(f"its .npy header gives the dtype {dtype}, which none has")
    # NumPy makes no array beyond, be it of no pixels.
    extent = math.prod(side or 1 for side in shape) * (dtype.itemsize or 1)
    if any(side < 0 for side in shape) or extent >= _MOST_BYTES:
        raise ValueError(f"its .npy header gives the shape {shape}, which none has")
    return Header(tuple(map(int, shape)), dtype, is_fortran, len(start))


def _read_exactly(stream: IO[bytes], n_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < n_bytes:
        piece = stream.read(n_bytes - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
