"""Reading the images of one npz member."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from nucleiseg.archives.failures import ZIP_FAILURES
from nucleiseg.archives.members import StoredMember, StreamedMember
from nucleiseg.archives.pieces import IndexedMember
from nucleiseg.archives.reader import Reader

if TYPE_CHECKING:
    from pathlib import Path

    from nucleiseg.archives.datasets import DatasetInfo
    from nucleiseg.archives.npy_header import Header


class NpzReader(Reader):
    """Reads one member: in place, through its seek points, or else as a stream."""

    _failures = ZIP_FAILURES

    def __init__(
        self,
        name: str,
        info: DatasetInfo,
        archive: zipfile.ZipFile,
        member: zipfile.ZipInfo,
        header: Header,
        points: Path | None,
        *,
        is_checked: bool,
    ) -> None:
        super().__init__(name, info)
        self._archive = archive
        self._header = header
        height, width = info.image_shape
        self._end = header.n_bytes + header.data_bytes
        self._image_bytes = header.dtype.itemsize * height * width
        self._bytes: StoredMember | IndexedMember | StreamedMember
        if member.compress_type == zipfile.ZIP_STORED:
            self._bytes = StoredMember(
                name, member, n_header_bytes=header.n_bytes, is_checked=is_checked
            )
        elif points is not None:
            self._bytes = IndexedMember(name, member, points)
        else:
            self._bytes = StreamedMember(archive, member)

    def _read_block(self, start: int, stop: int, out: np.ndarray[Any, Any]) -> None:
        header = self._header
        raw = out.reshape(-1).view(np.uint8)
        self._read_bytes(header.n_bytes + start * self._image_bytes, raw.data)
        values = self._make_native(raw)
        if header.is_fortran:
            # One image only: stacks are refused when they are opened.
            image = values.reshape(header.shape, order="F").copy(order="C")
            out[...] = image.reshape(out.shape)

    def _read_region(
        self, image: int, rows: tuple[int, int], columns: tuple[int, int]
    ) -> np.ndarray[Any, Any]:
        if self._header.is_fortran:
            return np.ascontiguousarray(self._read_segments(0, columns, rows).T)
        return self._read_segments(image * self._image_bytes, rows, columns)

    def _read_segments(
        self, offset: int, lines: tuple[int, int], span: tuple[int, int]
    ) -> np.ndarray[Any, Any]:
        """Read of each line, which is a row or, in Fortran order, a column, a span."""
        height, width = self.info.image_shape
        line_bytes = height if self._header.is_fortran else width
        line_bytes *= self._header.dtype.itemsize
        n_lines = lines[1] - lines[0]
        segment_bytes = (span[1] - span[0]) * self._header.dtype.itemsize
        raw = np.empty((n_lines, segment_bytes), dtype=np.uint8)
        offset += self._header.n_bytes + lines[0] * line_bytes
        offset += span[0] * self._header.dtype.itemsize
        if segment_bytes == line_bytes:
            self._read_bytes(offset, raw.reshape(-1).data)
        else:
            # In the order of the file: what inflates does so once, forwards.
            for i in range(n_lines):
                self._read_bytes(offset + i * line_bytes, raw[i].data)
        return self._make_native(raw)

    def _read_bytes(self, start: int, target: memoryview) -> None:
        self._bytes.read_into(start, target)
        stop = start + len(target)
        # The CRC is of all that the member holds, behind the array too.
        if stop == self._end and not isinstance(self._bytes, IndexedMember):
            self._bytes.check_to_end(stop)

    def _make_native(self, raw: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """See bytes as values in native byte order, without a copy."""
        values = raw.view(self._header.dtype)
        if not self._header.dtype.isnative:
            values = values.byteswap(inplace=True).view(np.dtype(self.info.dtype))
        return values

    def _release(self) -> None:
        self._bytes.close()
        self._archive.close()
