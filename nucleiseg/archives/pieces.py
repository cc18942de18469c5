"""The bytes of a deflated member in any range, through its seek points."""

from __future__ import annotations

import io
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from nucleiseg.archives.gzip_view import GzipView
from nucleiseg.archives.inflating import INFLATE_ERRORS
from nucleiseg.archives.seek_points import SeekPoints

if TYPE_CHECKING:
    import zipfile
    from pathlib import Path


class IndexedMember:
    """A deflated member of which only the pieces that are asked for are inflated.

    The last piece is kept: reading forwards in ranges of any size inflates every
    piece once, and memory is that of a few pieces whatever the member's size. For each
    piece an index of its two seek points is imported, into one rapidgzip object: an
    object a piece would leak 30 KB each. So it is 5 KB, within rapidgzip, which closing
    the object does not give back: 1.3 GB of a terabyte. It is rapidgzip because ISA-L
    within it takes a third of zlib's time; the GIL is free meanwhile, and with a
    parallelization of 1 it starts no thread.
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
        self._stream: Any = None

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
        self._view.failure = None
        try:
            stream = self._get_stream()
            with io.BytesIO(piece.index) as index:
                # rapidgzip never lets go of it: closed, it is empty at least.
                stream.import_index(index)
            stream.seek(piece.start)
            n_read = 0
            while n_read < len(data):
                n_more = stream.readinto(data[n_read:])
                if not n_more:
                    raise EOFError
                n_read += n_more
        except BaseException as error:
            # What state it is in, nobody knows.
            self._close_stream()
            if self._view.failure not in (None, error):
                raise self._view.failure from error
            if isinstance(error, INFLATE_ERRORS):
                # rapidgzip's messages tell of its own insides.
                raise ValueError("it is no deflate stream") from error
            raise
        self._piece, self._piece_start = data, piece.start

    def _get_stream(self) -> Any:
        import rapidgzip

        if self._stream is None:
            self._stream = rapidgzip.RapidgzipFile(self._view, parallelization=1)
            # Left open at the interpreter's end, such an object aborts the process.
            weakref.finalize(self, self._stream.close)
        return self._stream

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    def close(self) -> None:
        """Close the files."""
        self._close_stream()
        self._view.close()
        self._points.close()
