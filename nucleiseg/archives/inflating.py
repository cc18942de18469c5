"""Inflating a whole member on several cores, keeping the seek points on the way."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from nucleiseg.archives.failures import give_reason, make_error
from nucleiseg.archives.gzip_view import GzipView
from nucleiseg.archives.seek_points import write_points
from nucleiseg.atomic import atomic_path

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Callable
    from pathlib import Path

    from nucleiseg.errors import ArchiveError

_READ_BYTES = 4 << 20

# rapidgzip divides the compressed bytes, so that its memory would follow the ratio: 4
# MB of blank images inflate to 1 GB, and it holds several. The raw size is what is
# meant. 16 MB cost no speed (1.3 GB of images: 1.6 s of CPU, as with 30 MB).
_CHUNK_RAW_BYTES = 16 << 20
_LEAST_CHUNK_BYTES, _MOST_CHUNK_BYTES = 64 << 10, 4 << 20

# What C++ exceptions become.
INFLATE_ERRORS = (RuntimeError, ValueError, IndexError, EOFError)


class InflateError(Exception):
    """rapidgzip found the member damaged, or failed for a reason of its own."""


def inflate_all(
    name: str,
    member: zipfile.ZipInfo,
    points: Path,
    *,
    n_threads: int,
    report: Callable[[float], None],
) -> None:
    """Inflate a deflated member to nowhere; check size and CRC; write seek points.

    Parameters
    ----------
    name : str
        The zip file.
    member : ZipInfo
    points : Path
        File to write atomically, only when everything is right.
    n_threads : int
        1 starts no thread and takes two thirds of the CPU time of several: who
        begins in the middle does not know what lies before.
    report : callable
        Called with the share that is done, 0 to 1.

    Raises
    ------
    InflateError
        Size or CRC differ, or it cannot be inflated.
    ArchiveError
        The file system fails.
    """
    import rapidgzip

    try:
        view = GzipView(name, member)
    except OSError as error:
        raise _make_reading_error(name, member, error) from error
    buffer = memoryview(bytearray(min(_READ_BYTES, member.file_size + 1)))
    try:
        # Left open at the interpreter's end, such an object aborts the process.
        with rapidgzip.RapidgzipFile(
            view, parallelization=n_threads, chunk_size=_choose_chunk_bytes(member)
        ) as stream:
            n_read = 0
            while n_more := stream.readinto(buffer):
                n_read += n_more
                report(min(1.0, n_read / max(1, member.file_size)))
            if n_read != member.file_size:
                raise InflateError(f"{n_read} bytes instead of {member.file_size}")
            # An unnamed file is gone with the process, however that ends.
            with tempfile.TemporaryFile(dir=points.parent) as exported:
                stream.export_index(exported)
                # Who has read a note may have these open: they are as good.
                if not points.exists():
                    with atomic_path(points) as temporary:
                        write_points(temporary, exported)
    except (OSError, *INFLATE_ERRORS) as error:
        if view.failure is not None:
            raise _make_reading_error(name, member, view.failure) from view.failure
        if isinstance(error, OSError):
            raise  # of writing the seek points
        raise InflateError(give_reason(error)) from error
    finally:
        view.close()


def _make_reading_error(
    name: str, member: zipfile.ZipInfo, error: OSError
) -> ArchiveError:
    return make_error(
        f"{name}:{member.filename}",
        f"cannot be read ({give_reason(error)}); check the file system",
    )


def _choose_chunk_bytes(member: zipfile.ZipInfo) -> int:
    ratio = max(1.0, member.file_size / max(1, member.compress_size))
    chunk_bytes = int(_CHUNK_RAW_BYTES / ratio)
    return min(max(chunk_bytes, _LEAST_CHUNK_BYTES), _MOST_CHUNK_BYTES)
