"""HDF5 archives: datasets of any layout and filter, read by slices."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import h5py

from nucleiseg.archives.datasets import (
    DatasetInfo,
    describe_dataset,
    describe_unreadable,
)
from nucleiseg.archives.failures import (
    DAMAGED_REMEDY,
    HDF5_FAILURES,
    INCOMPLETE_REMEDY,
    give_reason,
    make_error,
)
from nucleiseg.archives.hdf5_links import Link, Names, find_names
from nucleiseg.archives.hdf5_reader import Hdf5Reader, get_layout

if TYPE_CHECKING:
    from nucleiseg.archives.reader import Reader

_METADATA_BYTES = 1 << 20
_FILTER_NAMES = {
    1: "gzip",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    305: "lzo",
    307: "bzip2",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32018: "fcidecomp",
    32024: "sz3",
    32026: "blosc2",
    32028: "sperr",
}


def list_datasets(name: str) -> list[DatasetInfo]:
    """List the datasets of an HDF5 file in name order, under each of their names."""
    with _open_file(name) as file:
        first: dict[int, str] = {}
        datasets = []
        for key, address in _find_names(name, file).objects.items():
            info = _describe(file, key)
            if info is None:
                continue
            if address in first:
                info = replace(info, alias_of=first[address])
            first.setdefault(address, key)
            datasets.append(info)
        return datasets


def list_links(name: str) -> list[Link]:
    """List the soft and external links of an HDF5 file."""
    with _open_file(name) as file:
        return _find_names(name, file).links


def _find_names(name: str, file: h5py.File) -> Names:
    try:
        return find_names(name, file)
    except HDF5_FAILURES as error:
        raise make_error(
            name, f"its groups cannot be read ({give_reason(error)}); {DAMAGED_REMEDY}"
        ) from error


def open_dataset(name: str, key: str) -> Reader | None:
    """Open a reader of one dataset, or None where there is none of this key."""
    file = _open_file(name)
    key = "/" + key.strip("/")
    try:
        info = _describe(file, key)
        if info is None:
            file.close()
            return None
        if info.unreadable:
            raise make_error(f"{name}:{key}", info.unreadable)
        return Hdf5Reader(name, info, file, get_layout(file[key]))
    except HDF5_FAILURES as error:
        file.close()
        raise make_error(
            f"{name}:{key}",
            f"cannot be opened ({give_reason(error)}); {DAMAGED_REMEDY}",
        ) from error
    except BaseException:
        file.close()
        raise


def _open_file(name: str) -> h5py.File:
    # Registers the filters of blosc, zstd and others; 0.1 s that npz need not pay.
    import hdf5plugin  # noqa: F401

    # Locks fail on many network file systems, and reading needs none; but what a
    # site has set holds.
    is_set_by_site = "HDF5_USE_FILE_LOCKING" in os.environ
    try:
        file = h5py.File(name, "r", locking=None if is_set_by_site else False)
        _bound_metadata_cache(file)
        return file
    except HDF5_FAILURES as error:
        reason = give_reason(error)
        if "truncated" in reason:
            raise make_error(
                name, f"its end is missing ({reason}); {INCOMPLETE_REMEDY}"
            ) from error
        if "unable to lock" in str(error):
            raise make_error(
                name,
                f"is locked ({reason}); wait for its writer, or set "
                "HDF5_USE_FILE_LOCKING=FALSE",
            ) from error
        raise make_error(
            name,
            f"its HDF5 structure cannot be read ({reason}); {INCOMPLETE_REMEDY}",
        ) from error


def _bound_metadata_cache(file: h5py.File) -> None:
    """Keep HDF5 from holding more of a file's index the more chunks it has.

    By itself it takes up to 32 MB for each open file. A range of images needs a few
    pages of a few KB.
    """
    config = file.id.get_mdc_config()
    config.set_initial_size = 1
    config.initial_size = config.min_size = config.max_size = _METADATA_BYTES
    # 0: off.
    config.incr_mode = config.flash_incr_mode = config.decr_mode = 0
    file.id.set_mdc_config(config)


def _describe(file: h5py.File, key: str) -> DatasetInfo | None:
    """Describe one dataset; None where there is none, or it lies in another file."""
    try:
        if key not in file:
            return None
        dataset = file[key]
        is_inside = dataset.file.id == file.id
        if not isinstance(dataset, h5py.Dataset) or not is_inside:
            return None
        storage, unreadable = _describe_storage(dataset)
        shape = dataset.shape
        dtype = dataset.dtype
        layout = get_layout(dataset)
    except HDF5_FAILURES as error:
        clause = f"cannot be read ({give_reason(error)}); {DAMAGED_REMEDY}"
        if isinstance(error, UnicodeError):
            clause = "has a name that is not UTF-8: rename it, e.g. with h5py"
        elif isinstance(error, TypeError):
            clause = (
                f"has an HDF5 type unknown to NumPy ({give_reason(error)}): "
                "write it again as uint16 or float32"
            )
        return describe_unreadable(key, storage="unknown", unreadable=clause)
    if shape is None:
        unreadable = "has no values (an empty dataspace): write an array"
        shape = ()
    return describe_dataset(
        key,
        tuple(map(int, shape)),
        dtype,
        storage=storage,
        unreadable=unreadable,
        chunk_images=layout.layer_images if layout else 1,
        access_problem=layout.find_problem(key) if layout else None,
    )


def _describe_storage(dataset: h5py.Dataset) -> tuple[str, str | None]:
    """Say in words how a dataset is stored, and why it cannot be read, if so."""
    created_with = dataset.id.get_create_plist()
    filters = [created_with.get_filter(i) for i in range(created_with.get_nfilters())]
    words = [_get_layout(dataset, created_with.get_layout())]
    unreadable = None
    for code, _, _, label in filters:
        known = label.decode("utf-8", "replace").partition(";")[0] or "unnamed"
        word = _FILTER_NAMES.get(code, known)
        words.append(word)
        if not h5py.h5z.filter_avail(code):
            unreadable = (
                f"needs the HDF5 filter {word} (number {code}), which is not "
                "installed: install its plugin, or repack with h5repack -f GZIP=4"
            )
    # Of data in other files the fingerprint knows nothing, and HDF5 gives zeros
    # where such a file is missing.
    if dataset.is_virtual or dataset.external:
        unreadable = (
            "keeps its values elsewhere (a virtual or external dataset): name the "
            "datasets that hold them, or copy it into one file"
        )
    return ", ".join(words), unreadable


def _get_layout(dataset: h5py.Dataset, layout: int) -> str:
    if dataset.chunks is not None and layout == h5py.h5d.CHUNKED:
        return "chunked " + "x".join(map(str, dataset.chunks))
    names = {
        h5py.h5d.COMPACT: "compact",
        h5py.h5d.CONTIGUOUS: "external" if dataset.external else "contiguous",
        h5py.h5d.VIRTUAL: "virtual",
    }
    return names.get(layout, f"layout {layout}")
