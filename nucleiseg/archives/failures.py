"""From what libraries raise to one line that a user can act on."""

from __future__ import annotations

import lzma
import re
import struct
import zipfile
import zlib

from nucleiseg.errors import ArchiveError

DAMAGED_REMEDY = "the archive is damaged: copy it again from its source"
INCOMPLETE_REMEDY = (
    "it is truncated or still being written: wait, or copy it again from its source"
)
_MAX_REASON_CHARS = 160

ZIP_FAILURES: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    # Encryption, a compression that zipfile lacks.
    RuntimeError,
    # A damaged .npy header; names and numbers of the zip directory.
    ValueError,
    OverflowError,
)
"""What a damaged npz leads to in the libraries below."""

HDF5_FAILURES: tuple[type[Exception], ...] = (
    OSError,
    KeyError,
    RuntimeError,
    ValueError,
    TypeError,
    OverflowError,
)
"""What a damaged HDF5 file leads to in h5py."""


def make_error(name: str, clause: str) -> ArchiveError:
    """Make an `ArchiveError` of one printable line about the archive `name`."""
    return ArchiveError(to_one_line(f"{name}: {clause}"), reason=to_one_line(clause))


def to_one_line(text: str) -> str:
    """Collapse white space and escape what cannot be printed (odd file names)."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in " ".join(text.split())
    )


def give_reason(error: BaseException) -> str:
    """Say in a few words, the same in every run, what an exception means.

    h5py's messages carry times, file descriptors and memory addresses; of those
    only the operating system's own words are kept.
    """
    # A KeyError's own text is the repr of its message.
    is_quoted = isinstance(error, KeyError) and error.args
    text = to_one_line(str(error.args[0] if is_quoted else error))
    system_words = re.search(r"error message = '([^']*)'", text)
    if system_words:
        return system_words[1]
    if isinstance(error, OSError) and error.strerror and "(" not in error.strerror:
        return error.strerror
    if isinstance(error, EOFError):
        return "its data end early"
    in_brackets = re.fullmatch(
        r"(?:Unable to|Can't|Object \w+ failed)[^(]*\((.*)\)", text
    )
    if in_brackets:
        text = in_brackets[1]
    text = re.sub(r"0x[0-9a-f]+", "…", text).strip(" .")
    if len(text) > _MAX_REASON_CHARS:
        text = text[:_MAX_REASON_CHARS] + "…"
    return text or type(error).__name__
