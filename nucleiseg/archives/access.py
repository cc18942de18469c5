"""The archive's datasets and their readers, whatever kind of file it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nucleiseg.archives import hdf5, npz
from nucleiseg.archives.explaining import explain_no_match
from nucleiseg.archives.failures import DAMAGED_REMEDY, make_error
from nucleiseg.archives.files import Kind, recognise
from nucleiseg.archives.index import find_points, read_note
from nucleiseg.archives.selection import choose_datasets, list_unfit

if TYPE_CHECKING:
    from pathlib import Path

    from nucleiseg.archives.datasets import DatasetInfo
    from nucleiseg.archives.hdf5_links import Link
    from nucleiseg.archives.reader import Reader


def list_datasets(path: str | os.PathLike[str]) -> list[DatasetInfo]:
    """List every dataset of an archive from its headers.

    Parameters
    ----------
    path : path
        An npz or HDF5 file, known by its first bytes.

    Returns
    -------
    list of DatasetInfo
        In file order (npz) or name order (HDF5); unusable ones say why. Of HDF5, soft
        and external links are not followed; what has several names, by hard links, is
        listed under each, and all but the first have `alias_of`.

    Raises
    ------
    ArchiveError
        Where the file as a whole cannot be read.
    """
    name = os.fspath(path)
    if recognise(path) is Kind.NPZ:
        return npz.list_members(name)
    return hdf5.list_datasets(name)


def find_images(path: str | os.PathLike[str], key: str | None) -> list[DatasetInfo]:
    """Find the image datasets that a key, a glob or their being alone chooses.

    Parameters
    ----------
    path : path
        The archive.
    key : str or None
        Key or glob (`/wells/*/images`), a leading slash being optional; None takes
        the only dataset of greyscale images with sides of 8 px or more.

    Returns
    -------
    list of DatasetInfo
        At least one, each with `problem` None, in the order of `list_datasets`. Of
        several that a glob matches, the unusable ones are left out, and with a warning
        further names of one dataset.

    Raises
    ------
    ArchiveError
        Where nothing fits, the named dataset is unfit, or several would fit.
    """
    return choose_datasets(
        os.fspath(path),
        list_datasets(path),
        key=key,
        find_problem=lambda info: info.problem,
        list_links=lambda: _list_links(path),
        purpose="image",
        is_each_once=True,
    )


def find_unfit_images(
    path: str | os.PathLike[str], key: str | None
) -> list[DatasetInfo]:
    """Find what a glob matches beside `find_images` and cannot be used as images.

    Returns
    -------
    list of DatasetInfo
        Each with its `problem`; text and tables of coordinates are not among them.

    Raises
    ------
    ArchiveError
        Where the file as a whole cannot be read.
    """
    if key is None:
        return []
    return list_unfit(
        os.fspath(path),
        list_datasets(path),
        key=key,
        find_problem=lambda info: info.problem,
    )


def find_labels(path: str | os.PathLike[str], key: str | None) -> list[DatasetInfo]:
    """Find datasets of label images or masks: as `find_images`, for the truth.

    Any bool, integer or float dtype will do, so `problem` of a result may be set. Of
    several names of one dataset all are found: one blank mask may serve many wells.
    """
    return choose_datasets(
        os.fspath(path),
        list_datasets(path),
        key=key,
        find_problem=lambda info: info.label_problem,
        list_links=lambda: _list_links(path),
        purpose="label",
        is_each_once=False,
    )


def open_reader(
    path: str | os.PathLike[str],
    key: str,
    *,
    index: tuple[Path, str] | None = None,
) -> Reader:
    """Open one dataset of images or labels for reading.

    Parameters
    ----------
    path : path
        The archive.
    key : str
        The dataset's key, no glob; a leading slash is optional.
    index : (folder, fingerprint), optional
        Where `pass_member` noted what it found, and of which archive. A deflated npz
        member is then inflated only where it is read, and a damaged member is refused
        at once. Without it such a member is inflated from its start: fast forwards
        only; and damage that its CRC alone shows is found by reading all of the images
        in order, at the last one. HDF5 needs none.

    Returns
    -------
    Reader
        To be closed, or used as a context manager.

    Raises
    ------
    ArchiveError
        Where there is no such dataset, its values cannot be read as 2-D images, or
        the pass over it found damage.
    RunError
        Where note or seek points are damaged.
    ValueError
        Where an index is given, but `pass_member` was never called for it.
    """
    name = os.fspath(path)
    if recognise(path) is Kind.HDF5:
        reader = hdf5.open_dataset(name, key)
    else:
        reader = npz.open_member(
            name,
            key,
            find_points=lambda known: _find_points(name, known, index),
            is_checked=index is not None,
        )
    if reader is None:
        links = _list_links(path)
        raise make_error(name, explain_no_match(list_datasets(path), key, links))
    if reader.info.label_problem:
        reader.close()
        raise make_error(f"{name}:{reader.info.key}", reader.info.label_problem)
    return reader


def _list_links(path: str | os.PathLike[str]) -> list[Link]:
    if recognise(path) is Kind.NPZ:
        return []
    return hdf5.list_links(os.fspath(path))


def _find_points(name: str, key: str, index: tuple[Path, str] | None) -> Path | None:
    """Find the seek points of an npz member, if there are any, or refuse it."""
    if index is None:
        return None
    folder, fingerprint = index
    note = read_note(folder, fingerprint, key)
    if note is None:
        # Not an ArchiveError: no input is at fault, and it must not become a row.
        raise ValueError(
            f"{name}:{key} has no note in {folder}; call pass_member for it before"
        )
    if note.damage is not None:
        raise make_error(f"{name}:{key}", f"{note.damage}; {DAMAGED_REMEDY}")
    return find_points(folder, fingerprint, key) if note.has_points else None
