"""The bytes of a deflated member in any range, through its seek points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nucleiseg.archives.gzip_view import GzipView
from nucleiseg.archives.seek_points import SeekPoints

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Iterator
    from pathlib import Path

    from nucleiseg.archives.seek_points import Piece

_READ_BYTES = 128 << 10
# Blank images inflate to a thousand times their bytes, and a piece may be one block.
_MOST_RAW_BYTES = 4 << 20

# Blocks of no bytes (RFC 1951, 3.2.6 and 3.2.7), lowest bit first: one of 10 bits with
# the fixed codes, and one of 91 with codes of its own, for byte 0 and the block's end.
_EVEN_BLOCK = "010" + "0000000"
_ODD_BLOCK = (
    # Not the last; 257 literals, 1 distance, 18 lengths of codes that follow ...
    "001" + "00000" + "00000" + "0111"
    # ... in RFC 1951's order: symbols 18 (third) and 1 (last) have one bit each.
    + "000" * 2 + "100" + "000" * 14 + "100"
    # Length 1 for byte 0, none for 138 and 117 more, 1 for the end, 1 for a distance.
    + "0" + "1" + "1111111" + "1" + "0101011" + "0" + "0"
    # The end.
    + "1"
)  # fmt: skip


def make_fill(n_bits: int) -> tuple[bytes, int]:
    """Make a deflate stream of no bytes that ends at a bit.

    Parameters
    ----------
    n_bits : int
        0 to 7: lowest bits of a byte that are to be filled.

    Returns
    -------
    (bytes, int)
        Whole bytes to put in front of that byte, and its lowest bits.
    """
    bits = _ODD_BLOCK if n_bits % 2 else ""
    while len(bits) % 8 != n_bits:
        bits += _EVEN_BLOCK
    value = int(bits[::-1] or "0", 2)
    whole = len(bits) // 8
    return value.to_bytes(whole + 1, "little")[:whole], value >> (8 * whole)


_FILLS = tuple(map(make_fill, range(8)))


class IndexedMember:
    """A deflated member of which only the pieces that are asked for are inflated.

    The last piece is kept: reading forwards in ranges of any size inflates every
    piece once, and memory is that of a few pieces whatever the member's size. ISA-L
    takes three fifths of zlib's time, and the GIL is free meanwhile. rapidgzip, which
    found the seek points, would be a third faster, but loses 5 KB for each piece:
    1.3 GB of a terabyte.

    A piece may begin within a byte, and ISA-L begins at the first bit of one. Moving
    all bits would move stored blocks too, which begin at a byte: so the bits before
    the piece are filled up with blocks that hold nothing.
    """

    def __init__(self, name: str, member: zipfile.ZipInfo, points: Path) -> None:
        self._points = SeekPoints(points)
        try:
            self._view = GzipView(name, member)
        except BaseException:
            self._points.close()
            raise
        # One buffer for all pieces: new ones of unequal size fragment the heap (20 MB).
        self._buffer = np.empty(0, dtype=np.uint8)
        self._piece = memoryview(b"")
        self._piece_start = 0

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill `target` with the member's bytes from `start` on."""
        while target:
            offset = start - self._piece_start
            if not 0 <= offset < len(self._piece):
                self._inflate_piece(start)
                offset = start - self._piece_start
            data = self._piece[offset : offset + len(target)]
            target[: len(data)] = data
            target = target[len(data) :]
            start += len(data)

    def _inflate_piece(self, raw: int) -> None:
        piece = self._points.find(raw)
        n_bytes = piece.stop - piece.start
        self._piece = memoryview(b"")
        if n_bytes > len(self._buffer):
            self._buffer = np.empty(n_bytes, dtype=np.uint8)
        data = self._buffer[:n_bytes].data
        n_read = 0
        for part in self._inflate(piece):
            data[n_read : n_read + len(part)] = part
            n_read += len(part)
        if n_read < n_bytes:
            raise EOFError
        self._piece, self._piece_start = data, piece.start

    def _inflate(self, piece: Piece) -> Iterator[bytes]:
        """Inflate a piece part by part, up to its end."""
        from isal import isal_zlib

        stream = isal_zlib.decompressobj(wbits=-15, zdict=piece.window)
        n_left = piece.stop - piece.start
        for deflated in self._read(piece):
            while n_left:
                most = min(n_left, _MOST_RAW_BYTES)
                try:
                    part = stream.decompress(deflated, most)
                # The stub takes the class for one of its objects.
                except isal_zlib.error as error:  # type: ignore[misc]
                    raise ValueError("it is no deflate stream") from error
                yield part
                n_left -= len(part)
                deflated = stream.unconsumed_tail
                # Unlike zlib, ISA-L may have taken all and hold back what had no room.
                if len(part) < most and not deflated:
                    break

    def _read(self, piece: Piece) -> Iterator[bytes]:
        """Read the deflated bytes of a piece, as a stream that begins with it."""
        fill, lowest = _FILLS[piece.n_bits_before]
        yield fill
        place = self._view.seek(piece.place)
        while place < piece.place_behind:
            data = self._view.read(min(_READ_BYTES, piece.place_behind - place))
            if not data:
                raise EOFError
            if place == piece.place and piece.n_bits_before:
                kept = data[0] >> piece.n_bits_before << piece.n_bits_before
                data = bytes([kept | lowest]) + data[1:]
            yield data
            place += len(data)

    def close(self) -> None:
        """Close the files."""
        self._view.close()
        self._points.close()
