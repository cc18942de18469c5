"""npz archives: members of a zip file, each a NumPy array."""

from __future__ import annotations

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy_format

from nucleiseg.archives.datasets import (
    DatasetInfo,
    describe_dataset,
    describe_unreadable,
    drop_channel_axis,
)
from nucleiseg.archives.failures import (
    DAMAGED_REMEDY,
    INCOMPLETE_REMEDY,
    give_reason,
    make_error,
)
from nucleiseg.archives.members import StoredMember, StreamedMember
from nucleiseg.archives.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

_SUFFIX = ".npy"

_FAILURES: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    # Encryption, a compression that zipfile lacks, a header nested too deep.
    RuntimeError,
    # Everything else that a damaged .npy header leads to.
    ValueError,
    TypeError,
    SyntaxError,
    OverflowError,
    tokenize.TokenError,
)


@dataclass(frozen=True)
class _Header:
    """What the `.npy` header says."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    is_fortran: bool
    n_bytes: int

    @property
    def data_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def list_members(name: str) -> list[DatasetInfo]:
    """List the arrays of an npz in file order."""
    with _open_zip(name) as archive:
        members = _get_members(archive)
        others = archive.namelist()
        if others and not members:
            raise make_error(
                name,
                f"is a zip file without any {_SUFFIX} member (it holds {others[0]}), "
                "so no npz; unpack it, or write it with np.savez_compressed",
            )
        return [_describe(archive, key, member)[0] for key, member in members.items()]


def list_directory(name: str) -> Iterator[tuple[object, ...]]:
    """List name, sizes, CRC and place of each member out of the zip directory."""
    with _open_zip(name) as archive:
        for member in archive.infolist():
            yield (
                member.filename,
                member.compress_type,
                member.file_size,
                member.compress_size,
                member.CRC,
                member.header_offset,
            )


def open_member(name: str, key: str) -> Reader | None:
    """Open a reader of one array, or None where there is none of this key."""
    archive = _open_zip(name)
    try:
        members = _get_members(archive)
        by_plain_key = {known.lstrip("/"): known for known in members}
        known = key if key in members else by_plain_key.get(key.lstrip("/"))
        if known is None:
            archive.close()
            return None
        info, header = _describe(archive, known, members[known])
        if header is None:
            raise make_error(f"{name}:{known}", str(info.unreadable))
        return _NpzReader(name, info, archive, members[known], header)
    except _FAILURES as error:
        archive.close()
        raise make_error(
            f"{name}:{key}",
            f"cannot be opened ({give_reason(error)}); {DAMAGED_REMEDY}",
        ) from error
    except BaseException:
        archive.close()
        raise


def _open_zip(name: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(name)
    except zipfile.BadZipFile as error:
        # zipfile's words where the directory at the end is missing.
        if "not a zip file" in str(error):
            clause = f"its zip directory is missing; {INCOMPLETE_REMEDY}"
        else:
            clause = f"its zip directory cannot be read ({give_reason(error)})"
            clause += f"; {DAMAGED_REMEDY}"
        raise make_error(name, clause) from error
    except _FAILURES as error:
        raise make_error(
            name, f"cannot be opened ({give_reason(error)}); {DAMAGED_REMEDY}"
        ) from error


def _get_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Get the arrays by key; of two of one name the last, as np.load does."""
    return {
        member.filename.removesuffix(_SUFFIX): member
        for member in archive.infolist()
        if member.filename.endswith(_SUFFIX)
    }


def _describe(
    archive: zipfile.ZipFile, key: str, member: zipfile.ZipInfo
) -> tuple[DatasetInfo, _Header | None]:
    """Describe one member from its header; without one where it cannot be read."""
    compressions = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
    storage = compressions.get(
        member.compress_type, f"zip compression {member.compress_type}"
    )
    try:
        with archive.open(member) as stream:
            header = _read_header(stream)
    except _FAILURES as error:
        clause = f"cannot be read ({give_reason(error)})"
        if member.flag_bits & 1:
            clause = "is encrypted: write it again with np.savez_compressed"
        elif isinstance(error, NotImplementedError):
            clause += f", {storage}: write it again with np.savez_compressed"
        else:
            clause += f"; {DAMAGED_REMEDY}"
        return describe_unreadable(key, storage=storage, unreadable=clause), None
    if header.is_fortran:
        storage += ", Fortran order"
    info = describe_dataset(
        key,
        header.shape,
        header.dtype,
        storage=storage,
        unreadable=_find_layout_problem(header, member),
    )
    return info, header


def _read_header(stream: IO[bytes]) -> _Header:
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
    return _Header(tuple(map(int, shape)), dtype, is_fortran, stream.tell())


def _find_layout_problem(header: _Header, member: zipfile.ZipInfo) -> str | None:
    if header.dtype.hasobject:
        return None  # a pickle, of whatever size
    expected = header.n_bytes + header.data_bytes
    if member.file_size < expected:
        return (
            f"has {member.file_size} bytes where its header promises {expected}; "
            f"{DAMAGED_REMEDY}"
        )
    grey = drop_channel_axis(header.shape)
    if header.is_fortran and len(grey) > 2 and grey[0] > 1:
        # The images of such a stack are interleaved over the whole member.
        return "is in Fortran order: save np.ascontiguousarray(X)"
    return None


class _NpzReader(Reader):
    """Reads one member: in place where it is stored, else as a stream."""

    _failures = _FAILURES

    def __init__(
        self,
        name: str,
        info: DatasetInfo,
        archive: zipfile.ZipFile,
        member: zipfile.ZipInfo,
        header: _Header,
    ) -> None:
        super().__init__(name, info)
        self._archive = archive
        self._header = header
        self._bytes: StoredMember | StreamedMember
        if member.compress_type == zipfile.ZIP_STORED:
            self._bytes = StoredMember(name, member, n_header_bytes=header.n_bytes)
        else:
            self._bytes = StreamedMember(archive, member)

    def _read_block(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        header = self._header
        image_bytes = header.dtype.itemsize * math.prod(self.info.image_shape)
        raw = np.empty((stop - start) * image_bytes, dtype=np.uint8)
        self._bytes.read_into(header.n_bytes + start * image_bytes, raw.data)
        is_last = stop == self.info.n_images
        if is_last and isinstance(self._bytes, StreamedMember):
            self._bytes.check_to_end()
        values = raw.view(header.dtype)
        if not header.dtype.isnative:
            values = values.byteswap(inplace=True).view(np.dtype(self.info.dtype))
        if header.is_fortran:
            # One image only: _find_layout_problem refuses stacks.
            values = np.ascontiguousarray(values.reshape(header.shape, order="F"))
        return values

    def _release(self) -> None:
        self._bytes.close()
        self._archive.close()
