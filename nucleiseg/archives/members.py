"""The bytes of one zip member, in any range, in bounded memory."""

from __future__ import annotations

import os
import zipfile
import zlib
from typing import IO

from nucleiseg.archives.gzip_view import find_data

_PIECE_BYTES = 1 << 20


class StreamedMember:
    """A compressed member: inflated forwards, and from its start for a step back.

    Behind a damaged place nothing can be inflated. Where the first read failed is
    remembered, so that a thousand images behind it are refused at once instead of
    after a thousand passes from the start.
    """

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        self._archive = archive
        self._member = member
        self._stream: IO[bytes] | None = None
        self._position = 0
        self._damage: tuple[int, Exception] | None = None

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill `target` with the member's bytes from `start` on."""
        stop = start + len(target)
        if self._damage is not None and stop >= self._damage[0]:
            raise self._damage[1]
        if start < self._position:
            self.close()
        try:
            while self._position < start:
                self._read_piece(start - self._position)
            while target:
                data = self._read_piece(len(target))
                target[: len(data)] = data
                target = target[len(data) :]
        except BaseException as error:
            # A stream that failed is nowhere: the next read begins anew.
            self.close()
            if isinstance(error, Exception):
                self._damage = (stop, error)
            raise

    def check_to_end(self, start: int) -> None:
        """Read on from `start` to the member's end, where zipfile compares the CRC."""
        assert start == self._position
        while self._position < self._member.file_size:
            self._read_piece(_PIECE_BYTES)

    def close(self) -> None:
        """Close the stream; the next read opens it again."""
        if self._stream is not None:
            self._stream.close()
        self._stream = None
        self._position = 0

    def _read_piece(self, n_most: int) -> bytes:
        # Whatever is asked for, zipfile holds as many compressed bytes as well.
        if self._stream is None:
            self._stream = self._archive.open(self._member)
        data = self._stream.read(min(n_most, _PIECE_BYTES))
        if not data:
            raise EOFError
        self._position += len(data)
        return data


class StoredMember:
    """A member without compression: read in place.

    Not mapped: a map of a file that somebody truncates kills the process instead
    of raising.

    Parameters
    ----------
    name : str
        The zip file.
    member : ZipInfo
        Stored.
    n_header_bytes : int
        Read at once: whether they are there is known before an array is.
    is_checked : bool
        Whether a pass has compared the CRC. Without one, what is read forwards from the
        start is summed up and compared at the end; what is read elsewhere is not, for
        that takes all of the member. With one nothing is: what is found damaged must
        not depend on how the work was divided.
    """

    def __init__(
        self,
        name: str,
        member: zipfile.ZipInfo,
        *,
        n_header_bytes: int,
        is_checked: bool,
    ) -> None:
        self._member = member
        self._is_checked = is_checked
        self._n_summed = self._sum = 0
        self._file = open(name, "rb")
        try:
            self._offset = find_data(self._file.fileno(), member)
            self.read_into(0, memoryview(bytearray(n_header_bytes)))
        except BaseException:
            self._file.close()
            raise

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill `target` with the member's bytes from `start` on."""
        place = self._offset + start
        rest = target
        while rest:
            n_read = os.preadv(self._file.fileno(), [rest], place)
            if not n_read:
                raise EOFError
            rest = rest[n_read:]
            place += n_read
        n_known = self._n_summed - start
        if not self._is_checked and 0 <= n_known < len(target):
            self._sum = zlib.crc32(target[n_known:], self._sum)
            self._n_summed = start + len(target)

    def check_to_end(self, start: int) -> None:
        """Read on from `start` to the end if all before was read; compare the CRC."""
        n_bytes = self._member.file_size
        while not self._is_checked and start == self._n_summed < n_bytes:
            piece = bytearray(min(_PIECE_BYTES, n_bytes - start))
            self.read_into(start, memoryview(piece))
            start += len(piece)
        if self._n_summed == n_bytes and self._sum != self._member.CRC:
            # zipfile's words.
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {self._member.filename!r}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
