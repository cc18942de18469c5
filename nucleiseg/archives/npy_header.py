"""The `.npy` header in front of an array."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from numpy.lib import format as npy_format

if TYPE_CHECKING:
    import numpy as np


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
    """Read the `.npy` header; the stream is then at the array's first byte."""
    version = npy_format.read_magic(stream)
    # Version 3 differs from 2 only in the alphabet of field names.
    read = {
        (1, 0): npy_format.read_array_header_1_0,
        (2, 0): npy_format.read_array_header_2_0,
        (3, 0): npy_format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"unknown .npy version {version[0]}.{version[1]}")
    shape, is_fortran, dtype = read(stream)
    if any(side < 0 for side in shape):
        raise ValueError(f"negative shape {shape}")
    return Header(tuple(map(int, shape)), dtype, is_fortran, stream.tell())
