"""What the inputs of a run name: archives, their datasets, and what cannot be read."""

import dataclasses
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nucleiseg.archives import (
    DatasetInfo,
    find_images,
    find_unfit_images,
    fingerprint,
    split_name,
)
from nucleiseg.errors import ArchiveError
from nucleiseg.shards.naming import escape_unprintable, shortest_names
from nucleiseg.shards.plan import ArchiveRef

logger = logging.getLogger(__name__)

# On a network file system headers are waited for rather than computed.
_N_THREADS = 8


@dataclass(frozen=True)
class Item:
    """A dataset of images, or an input that cannot be read."""

    archive: int
    """Which of the archives."""
    dataset: str | None
    info: DatasetInfo | None
    """None where it cannot be read."""
    reason: str | None
    """Why it cannot be read."""


def survey(inputs: Sequence[str]) -> tuple[list[ArchiveRef], list[Item]]:
    """Read the headers of all archives.

    Parameters
    ----------
    inputs : sequence of str
        Each `ARCHIVE` or `ARCHIVE:KEY`, the key a glob.

    Returns
    -------
    archives : list of ArchiveRef
        Once each, however their paths are written; the first way of writing it is
        shown.
    items : list of Item
        Once each, in the order of the inputs and of the archives.
    """
    names = [split_name(text) for text in inputs]
    paths: dict[Path, Path] = {}
    for path, _ in names:
        paths.setdefault(path.resolve(), path.absolute())
    numbers = {path: number for number, path in enumerate(paths)}
    archives = [numbers[path.resolve()] for path, _ in names]
    references = _refer(list(paths.values()))
    items: dict[tuple[int, str | None], Item] = {}
    for archive, (path, key), found in zip(
        archives, names, _find_all(archives, names), strict=True
    ):
        if found.error is not None:
            failed = _fail(archive, key, found.error)
            items.setdefault((archive, key), failed)
            continue
        references[archive] = dataclasses.replace(
            references[archive], fingerprint=found.fingerprint
        )
        for info in found.datasets:
            # Two inputs may have it by two names.
            place = (archive, info.alias_of or info.key)
            if place in items:
                logger.warning(
                    "%s:%s is named twice; it is counted once", path, info.key
                )
            elif info.n_images == 0:
                logger.warning("%s:%s holds 0 images", path, info.key)
            items.setdefault(place, Item(archive, info.key, info, None))
        for info in found.unfit:
            unfit = _fail(archive, info.key, str(info.problem))
            items.setdefault((archive, info.alias_of or info.key), unfit)
    return references, list(items.values())


@dataclass(frozen=True)
class _Found:
    """What an input names."""

    datasets: Sequence[DatasetInfo] = ()
    unfit: Sequence[DatasetInfo] = ()
    """What a glob matches and cannot be counted."""
    fingerprint: str | None = None
    error: str | None = None
    """Why the input as a whole cannot be read."""


def _find_all(
    archives: Sequence[int], names: Sequence[tuple[Path, str | None]]
) -> list[_Found]:
    """Read headers and fingerprints, several archives at a time."""
    with ThreadPoolExecutor(_N_THREADS) as pool:
        found = list(pool.map(lambda name: _find(*name), names))
        # Once an archive, whatever is named of it: megabytes are read.
        readable = {
            archive: path
            for archive, (path, _), one in zip(archives, names, found, strict=True)
            if one.error is None
        }
        prints = dict(
            zip(readable, pool.map(_fingerprint, readable.values()), strict=True)
        )
    return [
        dataclasses.replace(prints[archive], datasets=one.datasets, unfit=one.unfit)
        if one.error is None
        else one
        for archive, one in zip(archives, found, strict=True)
    ]


def _find(path: Path, key: str | None) -> _Found:
    try:
        return _Found(find_images(path, key), find_unfit_images(path, key))
    except ArchiveError as error:
        return _Found(error=error.reason)


def _fingerprint(path: Path) -> _Found:
    """Fingerprint an archive; its failure means that it went away in between."""
    try:
        return _Found(fingerprint=fingerprint(path))
    except ArchiveError as error:
        return _Found(error=error.reason)


def _fail(archive: int, key: str | None, reason: str) -> Item:
    # Nothing is read by this name any more: what no table can hold is escaped.
    name = None if key is None else escape_unprintable(key)
    return Item(archive, name, None, reason)


def _refer(paths: Sequence[Path]) -> list[ArchiveRef]:
    names = shortest_names(paths)
    return [
        # A name that no table can hold, with a newline or not UTF-8, is escaped.
        ArchiveRef(str(path), escape_unprintable(name), None)
        for path, name in zip(paths, names, strict=True)
    ]
