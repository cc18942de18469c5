"""The names of what is in an HDF5 file: hard links are names, other links are not."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field

import h5py

from nucleiseg.archives.failures import make_error

# Groups that hold each other many times over have more names than memory holds.
_MOST_FURTHER_NAMES = 100_000


@dataclass(frozen=True)
class Link:
    """A soft or external link: it says where something is, and may be wrong."""

    key: str
    target: str
    """Path that it leads to, absolute."""
    file: str | None = None
    """Other file that the path is in, for an external link."""


@dataclass(frozen=True)
class Names:
    """Every name in a file."""

    objects: dict[str, int] = field(default_factory=dict)
    """Path to address, in order of paths: names of one object have one address.
    Groups that hold something are left out."""
    links: list[Link] = field(default_factory=list)


def find_names(name: str, file: h5py.File) -> Names:
    """Find all names, those through a group with several names included.

    ::

        /a/images        a group that is linked as /a and /b has its
        /b  -> /a        datasets as /a/images and /b/images

    Parameters
    ----------
    name : str
        The file, for messages.
    file : File

    Raises
    ------
    ArchiveError
        Where groups hold each other so often that the names cannot be listed.
    """
    visited: list[tuple[bytes, int, int]] = []

    def note(path: bytes, info: h5py.h5l.LinkInfo) -> None:
        # The next call gets the same object, filled anew.
        visited.append((path, info.type, info.u))

    # Of each group once only, by one of its names; but without opening an object.
    file.id.links.visit(note, info=True)
    root = h5py.h5o.get_info(file.id).addr
    groups = {"": root}
    inside: dict[int, dict[str, int | tuple[str, str | None]]] = defaultdict(dict)
    for relative, kind, value in visited:
        path = "/" + _to_text(relative)
        group, _, last = path.rpartition("/")
        if kind == h5py.h5l.TYPE_HARD:
            groups[path] = inside[groups[group]][last] = value
        elif kind in (h5py.h5l.TYPE_SOFT, h5py.h5l.TYPE_EXTERNAL):
            inside[groups[group]][last] = _read_link(file, relative)
    names = _spell(inside, root, n_most=len(visited) + _MOST_FURTHER_NAMES)
    if names is None:
        raise make_error(
            name,
            f"its groups have over {_MOST_FURTHER_NAMES:,} further names, by hard "
            "links to each other: make soft links of them",
        )
    return names


def _spell(
    inside: dict[int, dict[str, int | tuple[str, str | None]]],
    root: int,
    *,
    n_most: int,
) -> Names | None:
    """Spell out all paths from the root on, none through a group twice.

    None where there are too many.
    """
    objects: dict[str, int] = {}
    links = []
    ways = [("", root, frozenset((root,)))]
    n_names = 0
    while ways:
        path, group, above = ways.pop()
        n_names += len(inside[group])
        if n_names > n_most:
            return None
        for last, value in inside[group].items():
            key = f"{path}/{last}"
            if isinstance(value, tuple):
                target, other = value
                absolute = target if target.startswith("/") else f"{path}/{target}"
                links.append(Link(key, absolute, other))
            elif value not in inside:
                objects[key] = value
            elif value not in above:
                ways.append((key, value, above | {value}))
    return Names(dict(sorted(objects.items())), links)


def _read_link(file: h5py.File, path: bytes) -> tuple[str, str | None]:
    """Read the path that a link leads to, and in which other file, if in one."""
    value = file.id.links.get_val(path)
    if isinstance(value, bytes):
        return _to_text(value), None
    other, target = map(_to_text, value)
    folder = os.path.dirname(_to_text(file.filename))
    # What is no absolute path in another file begins at its root.
    return "/" + target.lstrip("/"), os.path.join(folder, other)


def _to_text(name: bytes | str) -> str:
    """Make text of a name that h5py gives as bytes, because it is not UTF-8."""
    return name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
