"""npz archives: members of a zip file, each a NumPy array."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

from nucleiseg.archives.datasets import (
    DatasetInfo,
    describe_dataset,
    describe_unreadable,
    drop_channel_axis,
)
from nucleiseg.archives.failures import (
    DAMAGED_REMEDY,
    INCOMPLETE_REMEDY,
    ZIP_FAILURES,
    give_reason,
    make_error,
)
from nucleiseg.archives.npy_header import Header, read_header
from nucleiseg.archives.npz_reader import NpzReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nucleiseg.archives.reader import Reader

_SUFFIX = ".npy"


def list_members(name: str) -> list[DatasetInfo]:
    """List the arrays of an npz in file order."""
    with open_archive(name) as archive:
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
    with open_archive(name) as archive:
        for member in archive.infolist():
            yield (
                member.filename,
                member.compress_type,
                member.file_size,
                member.compress_size,
                member.CRC,
                member.header_offset,
            )


def open_member(
    name: str,
    key: str,
    *,
    find_points: Callable[[str], Path | None],
    is_checked: bool,
) -> Reader | None:
    """Open a reader of one array, or None where there is none of this key.

    Parameters
    ----------
    name, key : str
        Archive and member; a leading slash of the key is optional.
    find_points : callable
        From the member's own key to the file of its seek points, if it has one; or it
        raises what is known against reading it.
    is_checked : bool
        Whether a pass has read all of the member and compared its CRC.
    """
    archive = open_archive(name)
    try:
        known = _find_key(archive, key)
        if known is None:
            archive.close()
            return None
        points = find_points(known)
        return _open_known(name, archive, known, points, is_checked=is_checked)
    except BaseException:
        archive.close()
        raise


def _find_key(archive: zipfile.ZipFile, key: str) -> str | None:
    members = _get_members(archive)
    by_plain_key = {known.lstrip("/"): known for known in members}
    return key if key in members else by_plain_key.get(key.lstrip("/"))


def _open_known(
    name: str,
    archive: zipfile.ZipFile,
    key: str,
    points: Path | None,
    *,
    is_checked: bool,
) -> Reader:
    member = _get_members(archive)[key]
    try:
        info, header = _describe(archive, key, member)
        if header is None or info.unreadable:
            raise make_error(f"{name}:{key}", str(info.unreadable))
        return NpzReader(
            name, info, archive, member, header, points, is_checked=is_checked
        )
    except ZIP_FAILURES as error:
        raise make_error(
            f"{name}:{key}",
            f"cannot be opened ({give_reason(error)}); {DAMAGED_REMEDY}",
        ) from error


def open_archive(name: str) -> zipfile.ZipFile:
    """Open a zip file and read its directory, or raise an `ArchiveError`."""
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
    except ZIP_FAILURES as error:
        raise make_error(
            name, f"cannot be opened ({give_reason(error)}); {DAMAGED_REMEDY}"
        ) from error


def find_member(archive: zipfile.ZipFile, key: str) -> zipfile.ZipInfo | None:
    """Find the member of a key as listed, without `.npy`; None where there is none."""
    return _get_members(archive).get(key)


def _get_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Get the arrays by key; of two of one name the last, as np.load does."""
    return {
        member.filename.removesuffix(_SUFFIX): member
        for member in archive.infolist()
        if member.filename.endswith(_SUFFIX)
    }


def _describe(
    archive: zipfile.ZipFile, key: str, member: zipfile.ZipInfo
) -> tuple[DatasetInfo, Header | None]:
    """Describe one member from its header; without one where it cannot be read."""
    compressions = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
    storage = compressions.get(
        member.compress_type, f"zip compression {member.compress_type}"
    )
    try:
        with archive.open(member) as stream:
            header = read_header(stream)
    except ZIP_FAILURES as error:
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
    return replace(info, is_fortran=header.is_fortran), header


def _find_layout_problem(header: Header, member: zipfile.ZipInfo) -> str | None:
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
