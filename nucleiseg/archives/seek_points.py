"""The file of a member's seek points: any piece of it can be fetched by itself.

A seek point is a place between two deflate blocks, with the 32 KB before it that the
blocks behind it may refer to (the window). They cut a member into pieces of about
4 MB. rapidgzip imports an index only whole, which for 100 GB means a gigabyte in every
worker; so its exported points are kept in a file of our own, and of that file only two
neighbouring rows and one window are read for a piece::

    header | row | row | ... | row | window | window | ...

A row has a fixed length, so that a place is found by bisection in the file. The
windows are compressed: images' compress as well as the images (0.06 % of 1.3 GB are
left, of 3 %). Each row carries a CRC of itself and its window, for a wrong window
would inflate to wrong pixels without an error.
"""

from __future__ import annotations

import bisect
import itertools
import os
import struct
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from nucleiseg.errors import RunError

if TYPE_CHECKING:
    from pathlib import Path

PIECE_BYTES = 4 << 20
"""Raw bytes between seek points; a window may be 32 KB, 0.8 % of this."""

_MAGIC = b"nsegpts1"
_HEADER = struct.Struct("<8sQQQ")
_ROW = struct.Struct("<QQBxxxIQ")
_CRC = struct.Struct("<I")
_ROW_BYTES = _ROW.size + _CRC.size

# The format of indexed_gzip, which rapidgzip reads and writes.
_EXPORT_HEADER = struct.Struct("<5sBBQQIII")
_EXPORT_POINT = struct.Struct("<QQBB")
_EXPORT_START = (b"GZIDX", 1, 0)
_WINDOW_BYTES = 32 << 10


@dataclass(frozen=True)
class _Point:
    """One seek point, as in the exported index."""

    place: int
    """Byte of the gzip view; of a point within a byte, the following one."""
    bits: int
    """How many bits of the byte before `place` belong to what follows."""
    raw: int
    """The same place in the inflated bytes."""
    window: bytes


@dataclass(frozen=True)
class Piece:
    """The stretch between two neighbouring seek points."""

    start: int
    """First raw byte."""
    stop: int
    """Behind the last raw byte."""
    place: int
    """Byte of the gzip view that it begins in."""
    n_bits_before: int
    """Lowest bits of that byte, 0 to 7, that belong to what lies before."""
    place_behind: int
    """Behind the last byte of the gzip view that it needs."""
    window: bytes
    """Raw bytes before it, up to 32 KB, that it may refer to."""


def write_points(path: Path, exported: IO[bytes]) -> None:
    """Write the file of seek points of an index that rapidgzip exported.

    Parameters
    ----------
    path : Path
        Where to write; the caller makes that atomic.
    exported : binary file
        In the format of indexed_gzip, seekable. Windows are read one at a time.
    """
    exported.seek(0)
    sizes, rows = _read_exported(exported)
    chosen = _thin_out(rows)
    with path.open("wb") as file:
        file.write(_HEADER.pack(_MAGIC, len(chosen), *sizes))
        place = _HEADER.size + len(chosen) * _ROW_BYTES
        for number, (point, window_place) in enumerate(chosen):
            window = b""
            # Nothing follows the last point.
            if window_place and number < len(chosen) - 1:
                exported.seek(window_place)
                window = zlib.compress(exported.read(_WINDOW_BYTES))
            row = _ROW.pack(point.place, point.raw, point.bits, len(window), place)
            file.seek(_HEADER.size + number * _ROW_BYTES)
            file.write(row + _CRC.pack(zlib.crc32(window, zlib.crc32(row))))
            file.seek(place)
            file.write(window)
            place += len(window)


def _read_exported(
    exported: IO[bytes],
) -> tuple[tuple[int, int], list[tuple[_Point, int]]]:
    """Read sizes (gzip, raw), and points with the places of their windows (0: none)."""
    fields = _EXPORT_HEADER.unpack(exported.read(_EXPORT_HEADER.size))
    *start, n_gzip, n_raw, _, window_bytes, n_points = fields
    if tuple(start) != _EXPORT_START or window_bytes != _WINDOW_BYTES:
        raise RuntimeError(
            f"rapidgzip exports an index that begins with {start} and has windows of "
            f"{window_bytes} bytes, not {_EXPORT_START} and {_WINDOW_BYTES}; install "
            "rapidgzip 0.16"
        )
    table = exported.read(n_points * _EXPORT_POINT.size)
    place = exported.tell()
    points = []
    for compressed, raw, bits, has_window in _EXPORT_POINT.iter_unpack(table):
        point = _Point(compressed, bits, raw, b"")
        points.append((point, place if has_window else 0))
        place += _WINDOW_BYTES if has_window else 0
    return (n_gzip, n_raw), points


def _thin_out(points: list[tuple[_Point, int]]) -> list[tuple[_Point, int]]:
    """Leave out points so that pieces have up to `PIECE_BYTES`, first and last kept.

    A piece is longer only where there is no point within it.
    """
    chosen = points[:1]
    for candidate, following in itertools.pairwise(points[1:]):
        if following[0].raw - chosen[-1][0].raw > PIECE_BYTES:
            chosen.append(candidate)
    return [*chosen, *points[1:][-1:]]


class SeekPoints:
    """Fetches pieces out of a file of seek points; memory does not grow with it.

    Raises
    ------
    RunError
        The file is missing or damaged; on fetching, too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise self._make_error(error.strerror or "cannot be opened") from error
        try:
            header = self._read(0, _HEADER.size)
            magic, self._n_points, *_ = _HEADER.unpack(header)
            if magic != _MAGIC or self._n_points < 2:
                raise self._make_error(f"it begins with {magic!r}, not {_MAGIC!r}")
        except BaseException:
            self._file.close()
            raise

    def find(self, raw: int) -> Piece:
        """Fetch the piece that holds the raw byte `raw`."""
        number = bisect.bisect_right(range(self._n_points), raw, key=self._get_raw) - 1
        if not 0 <= number < self._n_points - 1:
            raise self._make_error(f"it has no piece with byte {raw}")
        first, last = self._get_point(number), self._get_point(number + 1)
        if not first.raw <= raw < last.raw:
            raise self._make_error(f"its rows are not in order near byte {raw}")
        return Piece(
            start=first.raw,
            stop=last.raw,
            place=first.place - bool(first.bits),
            n_bits_before=-first.bits % 8,
            place_behind=last.place,
            window=first.window,
        )

    def _get_raw(self, number: int) -> int:
        start = _HEADER.size + number * _ROW_BYTES
        return int(_ROW.unpack(self._read(start, _ROW.size))[1])

    def _get_point(self, number: int) -> _Point:
        row = self._read(_HEADER.size + number * _ROW_BYTES, _ROW_BYTES)
        place, raw, bits, window_bytes, window_place = _ROW.unpack(row[: _ROW.size])
        (expected,) = _CRC.unpack(row[_ROW.size :])
        # A damaged length must not become a huge allocation.
        if window_bytes > 2 * _WINDOW_BYTES:
            raise self._make_error(f"row {number} is damaged")
        packed = self._read(window_place, window_bytes)
        if zlib.crc32(packed, zlib.crc32(row[: _ROW.size])) != expected:
            raise self._make_error(f"the CRC of row {number} differs")
        window = zlib.decompress(packed) if packed else b""
        return _Point(place, bits, raw, window)

    def _read(self, start: int, n_bytes: int) -> bytes:
        try:
            data = os.pread(self._file.fileno(), n_bytes, start)
        except OSError as error:
            raise self._make_error(str(error.strerror)) from error
        if len(data) < n_bytes:
            raise self._make_error("it ends early")
        return data

    def _make_error(self, cause: str) -> RunError:
        return RunError(
            f"{self._path} is missing or damaged ({cause}); delete it and the .json "
            "file beside it, and the same command makes both again"
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()
