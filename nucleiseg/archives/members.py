"""The bytes of one zip member, in any range, in bounded memory."""

from __future__ import annotations

import struct
import zipfile
import zlib
from typing import IO

_PIECE_BYTES = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class StreamedMember:
    """A compressed member: inflated forwards, and from its start for a step back."""

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        self._archive = archive
        self._member = member
        self._stream: IO[bytes] | None = None
        self._position = 0

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill `target` with the member's bytes from `start` on."""
        if start < self._position:
            self.close()
        try:
            while self._position < start:
                self._read_piece(start - self._position)
            while target:
                data = self._read_piece(len(target))
                target[: len(data)] = data
                target = target[len(data) :]
        except BaseException:
            # A stream that failed is nowhere: the next read begins anew.
            self.close()
            raise

    def check_to_end(self, array_end: int) -> None:
        """Read on from `array_end` to the end, where zipfile compares the CRC."""
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
    of raising. The CRC is compared once all bytes have been read in order.
    """

    def __init__(
        self, name: str, member: zipfile.ZipInfo, *, n_header_bytes: int
    ) -> None:
        self._member = member
        self._crc = 0
        self._n_checked = 0
        self._file = open(name, "rb")
        try:
            self._file.seek(member.header_offset)
            local_header = self._file.read(30)
            # The zip directory's copy of the extra field may have another length.
            _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(local_header)
            self._offset = member.header_offset + 30 + name_bytes + extra_bytes
            self.read_into(0, memoryview(bytearray(n_header_bytes)))
        except BaseException:
            self._file.close()
            raise

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill `target` with the member's bytes from `start` on."""
        self._file.seek(self._offset + start)
        n_read = 0
        while n_read < len(target):
            n_more = self._file.readinto(target[n_read:])
            if not n_more:
                raise EOFError
            n_read += n_more
        if start == self._n_checked:
            self._crc = zlib.crc32(target, self._crc)
            self._n_checked += n_read

    def check_to_end(self, array_end: int) -> None:
        """Compare the CRC, if all up to `array_end` has been read in order."""
        while array_end <= self._n_checked < self._member.file_size:
            n_more = min(_PIECE_BYTES, self._member.file_size - self._n_checked)
            self.read_into(self._n_checked, memoryview(bytearray(n_more)))
        if self._n_checked == self._member.file_size and self._crc != self._member.CRC:
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {self._member.filename!r}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
