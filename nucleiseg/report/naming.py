"""File names of pictures, from the names that archives give to datasets."""

import hashlib
from collections import Counter
from collections.abc import Sequence

from nucleiseg.archives import to_one_line

# Of the 255 bytes that file systems take, to leave room for what is put in front and
# behind: a number, a suffix, and the host of a file that is still being written.
_MOST_BYTES = 100


def name_files(names: Sequence[str]) -> list[str]:
    """Make each name one that a file can have, and no two the same.

    Parameters
    ----------
    names : sequence of str
        Each once; with slashes, letters that cannot be printed, of any length.

    Returns
    -------
    list of str
        Of at most 100 bytes. What is cut, or would be another's name, ends in a part
        of its digest, which is the same in every run.

    Examples
    --------
    >>> name_files(["/wells/A1/images", "/val/images"])
    ['wells_A1_images', 'val_images']
    """
    plain = [_make_plain(name) for name in names]
    # Some file systems do not tell a from A.
    counts = Counter(name.casefold() for name in plain)
    return [
        short
        if len(short.encode()) <= _MOST_BYTES and counts[short.casefold()] == 1
        else _cut(short, name)
        for short, name in zip(plain, names, strict=True)
    ]


def _make_plain(name: str) -> str:
    one_line = to_one_line(name.strip("/"))
    return one_line.replace("/", "_").replace("\\", "_")


def _cut(short: str, name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    room = _MOST_BYTES - len(digest) - 1
    start = short.encode()[:room].decode("utf-8", "ignore")
    return f"{start}-{digest}"
