"""Which kind of file an archive is, found from its first bytes."""

from __future__ import annotations

import difflib
import os
import stat
from enum import Enum
from pathlib import Path

import h5py

from nucleiseg.archives.failures import give_reason, make_error


class Kind(Enum):
    """The kinds of archive that can be read."""

    NPZ = "npz"
    HDF5 = "HDF5"


_ACCEPTED = "an archive is an .npz or an HDF5 file (.h5, .hdf5)"
_PACK_PICTURES = (
    'np.savez_compressed("images.npz", X=np.stack([cv2.imread(p, -1) for p in paths]))'
)
_PACK_NPY = 'np.savez_compressed("images.npz", X=np.load("images.npy"))'

# First bytes -> what the file looks like, and how to make an archive of it.
_OTHER_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x93NUMPY", "a single NumPy array (.npy)", f"pack it with {_PACK_NPY}"),
    *(
        (magic, f"a {name} picture", f"pack pictures with {_PACK_PICTURES}")
        for magic, name in (
            (b"II*\0", "TIFF"),
            (b"MM\0*", "TIFF"),
            (b"II+\0", "TIFF"),
            (b"MM\0+", "TIFF"),
            (b"\x89PNG", "PNG"),
            (b"\xff\xd8\xff", "JPEG"),
        )
    ),
    (b"\x1f\x8b", "gzip-compressed", "unpack it with gunzip or tar first"),
    (b"version https://git-lfs", "a Git LFS pointer", "fetch it with git lfs pull"),
    (b"ZISRAWFILE", "a Zeiss CZI image", "export its planes to npz or HDF5"),
    (b"<", "a web page or XML", "download the archive itself"),
)


def recognise(path: str | os.PathLike[str]) -> Kind:
    """Find which kind of archive a file is.

    Raises
    ------
    ArchiveError
        Where it is missing, a directory, empty, of another kind or not readable.
    """
    name = os.fspath(path)
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise make_error(name, f"is a directory; name one file in it: {_ACCEPTED}")
        # Opening a pipe would wait for its other end for ever.
        if not stat.S_ISREG(status.st_mode):
            raise make_error(name, f"is not a regular file; {_ACCEPTED}")
        if status.st_size == 0:
            raise make_error(name, "is empty (0 bytes); copy it again from its source")
        with open(path, "rb") as file:
            head = file.read(512)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise make_error(name, _explain_missing(Path(path))) from error
    except (OSError, ValueError) as error:
        reason = give_reason(error)
        raise make_error(
            name, f"cannot be opened ({reason}); check the path"
        ) from error
    # PK\5\6 begins a zip without members.
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return Kind.NPZ
    # is_hdf5 also looks behind a user block, as MATLAB's v7.3 files have one.
    if head.startswith(b"\x89HDF\r\n\x1a\n") or h5py.is_hdf5(os.fsencode(path)):
        return Kind.HDF5
    raise make_error(name, _explain_kind(head))


def _explain_kind(head: bytes) -> str:
    for magic, looks_like, remedy in _OTHER_KINDS:
        if head.startswith(magic):
            return f"looks like {looks_like}, and {_ACCEPTED}; {remedy}"
    return (
        f"looks like neither npz nor HDF5 (it begins with {head[:8]!r}), and "
        f"{_ACCEPTED}; if it was one, copy it again from its source"
    )


def _explain_missing(path: Path) -> str:
    try:
        siblings = sorted(os.listdir(path.parent))
    except OSError as error:
        reason = give_reason(error)
        return f"not found, and neither is its folder ({reason}); check the path"
    near = difflib.get_close_matches(path.name, siblings, n=1)
    if near:
        return f"not found; the nearest name in its folder is {near[0]}"
    return "not found; check the path"
