"""Whether an archive is still the one that was planned for."""

from __future__ import annotations

import hashlib
import os

from nucleiseg.archives import npz
from nucleiseg.archives.failures import give_reason, make_error
from nucleiseg.archives.files import Kind, recognise

_WHOLE_FILE_BYTES = 8 << 20
_END_BYTES = 1 << 20
_SAMPLE_BYTES = 16 << 10
_N_SAMPLES = 64


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Fingerprint an archive in milliseconds, however large it is.

    It is the SHA-256 of the size, the modification time, an npz's directory (names,
    sizes and CRCs of its members), and the content: all of it up to 8 MB, beyond
    that the first and the last 1 MB and 64 blocks of 16 KB evenly between.

    Promised: it changes with any change that touches size or modification time,
    with any change to an npz's members through a zip writer, and with any change to
    a file of up to 8 MB. Not promised: to see bytes of a larger file changed in
    place with its modification time set back; nor to stay the same for a copy, whose
    modification time differs (`cp -p` and `rsync -a` keep it).

    Parameters
    ----------
    path : path
        An npz or HDF5 file.

    Returns
    -------
    str
        32 hexadecimal digits.

    Raises
    ------
    ArchiveError
        Where the file is no archive or cannot be read.
    """
    name = os.fspath(path)
    kind = recognise(path)
    digest = hashlib.sha256(b"nucleiseg archive 1\n")
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            size = status.st_size
            digest.update(f"{size} {status.st_mtime_ns}\n".encode())
            for start, length in _choose_blocks(size):
                file.seek(start)
                digest.update(file.read(length))
    except OSError as error:
        reason = give_reason(error)
        raise make_error(
            name, f"cannot be read ({reason}); check the file system"
        ) from error
    if kind is Kind.NPZ:
        for row in npz.list_directory(name):
            digest.update(repr(row).encode())
    return digest.hexdigest()[:32]


def _choose_blocks(size: int) -> list[tuple[int, int]]:
    """Choose which (start, length) of a file of `size` bytes to read."""
    if size <= _WHOLE_FILE_BYTES:
        return [(0, size)]
    first, last = _END_BYTES, size - _END_BYTES - _SAMPLE_BYTES
    samples = [
        (first + (last - first) * i // (_N_SAMPLES - 1), _SAMPLE_BYTES)
        for i in range(_N_SAMPLES)
    ]
    return [(0, _END_BYTES), *samples, (size - _END_BYTES, _END_BYTES)]
