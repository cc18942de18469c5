"""A deflated zip member, seen as the gzip file that it nearly is."""

from __future__ import annotations

import io
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import zipfile

_LOCAL_HEADER = struct.Struct("<4s22xHH")

# Deflate, no flags, no time, unknown system (RFC 1952).
GZIP_HEADER = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
_GZIP_FOOTER = struct.Struct("<II")


def find_data(descriptor: int, member: zipfile.ZipInfo) -> int:
    """Find where in the zip file a member's own bytes begin.

    Raises
    ------
    EOFError
        The file ends within the member's local header.
    """
    local_header = os.pread(descriptor, _LOCAL_HEADER.size, member.header_offset)
    if len(local_header) < _LOCAL_HEADER.size:
        raise EOFError
    # The zip directory's copy of the extra field may have another length.
    _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(local_header)
    return int(member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes)


class GzipView(io.RawIOBase):
    """Read-only file object: gzip header, the member in place, CRC-32 and size.

    Deliberately without a `fileno`: a library that finds one would read the zip file
    itself, from its beginning. It has to inherit, for rapidgzip wants a `write` even
    of what it only reads. Nothing is copied or kept.

    ::

        zip file   | local header | deflate stream .......... | next member ...
        this       |  10 bytes    | deflate stream .......... | CRC, size |

    Parameters
    ----------
    name : str
        The zip file, opened anew: a view belongs to one thread.
    member : ZipInfo
        Deflated.
    """

    def __init__(self, name: str, member: zipfile.ZipInfo) -> None:
        super().__init__()
        self._descriptor = -1
        self._descriptor = os.open(name, os.O_RDONLY)
        self.failure: OSError | None = None
        """What the file system refused: it may be gone in the next attempt."""
        try:
            data_start = find_data(self._descriptor, member)
        except BaseException:
            self.close()
            raise
        footer = _GZIP_FOOTER.pack(member.CRC, member.file_size & 0xFFFFFFFF)
        self._data_start = data_start
        self._data_bytes = member.compress_size
        self._footer = footer
        self.n_bytes = len(GZIP_HEADER) + member.compress_size + len(footer)
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes; fewer only at the end of the view or the file."""
        wanted = self.n_bytes - self._position if size < 0 else size
        parts = []
        while wanted > 0:
            part = self._read_part(wanted)
            if not part:
                break
            parts.append(part)
            self._position += len(part)
            wanted -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_part(self, n_most: int) -> bytes:
        start = self._position
        if start < len(GZIP_HEADER):
            return GZIP_HEADER[start : start + n_most]
        start -= len(GZIP_HEADER)
        if start < self._data_bytes:
            n_most = min(n_most, self._data_bytes - start)
            try:
                return os.pread(self._descriptor, n_most, self._data_start + start)
            except OSError as error:
                self.failure = error
                raise
        start -= self._data_bytes
        return self._footer[start : start + n_most]

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place, and return it."""
        bases = {
            io.SEEK_SET: 0,
            io.SEEK_CUR: self._position,
            io.SEEK_END: self.n_bytes,
        }
        self._position = max(0, bases[whence] + offset)
        return self._position

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._position

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
        super().close()
