"""Reading the images of one HDF5 dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from nucleiseg.archives.chunks import MAX_KEPT_BYTES, ChunkLayout
from nucleiseg.archives.failures import HDF5_FAILURES
from nucleiseg.archives.reader import Reader

if TYPE_CHECKING:
    from nucleiseg.archives.datasets import DatasetInfo

_LEAST_CACHE_BYTES = 1 << 20


def get_layout(dataset: h5py.Dataset) -> ChunkLayout | None:
    """Get the layout of a dataset's chunks; None where it has none."""
    created_with = dataset.id.get_create_plist()
    # A virtual dataset gives chunks, too.
    if dataset.chunks is None or created_with.get_layout() != h5py.h5d.CHUNKED:
        return None
    return ChunkLayout(
        tuple(map(int, dataset.shape)),
        tuple(map(int, dataset.chunks)),
        dataset.dtype.itemsize,
        is_compressed=created_with.get_nfilters() > 0,
    )


class Hdf5Reader(Reader):
    """Reads slices of a dataset, straight into the array that is handed out.

    Where compressed chunks span several images, a slab of images is read at once and
    kept, so that reading forwards inflates each chunk once, or where its layer is too
    large to be kept once a slab.
    """

    _failures = HDF5_FAILURES

    def __init__(
        self,
        name: str,
        info: DatasetInfo,
        file: h5py.File,
        layout: ChunkLayout | None,
    ) -> None:
        super().__init__(name, info)
        self._file = file
        self._layout = layout
        self._dataset = _open_with_cache(file, info.key, layout)
        self._leaves_gaps = _leaves_gaps(self._dataset)
        self._slab: np.ndarray[Any, Any] | None = None
        self._slab_start = 0

    def _read_block(self, start: int, stop: int, out: np.ndarray[Any, Any]) -> None:
        # With a channel axis, where there is one.
        if not self.info.is_stack:
            self._fill(out.reshape(self.info.shape), np.s_[:])
            return
        values = out.reshape(stop - start, *self.info.shape[1:])
        if self._layout is None or self._layout.slab_images == 1:
            self._fill(values, np.s_[start:stop])
            return
        place = start
        while place < stop:
            slab_start, slab_stop = self._layout.find_slab(place)
            part = values[place - start : slab_stop - start]
            is_kept = self._slab is not None and self._slab_start == slab_start
            if not is_kept and place == slab_start and slab_stop <= stop:
                self._fill(part, np.s_[place:slab_stop])
            else:
                slab = self._get_slab(slab_start, slab_stop)
                part[...] = slab[place - slab_start :][: len(part)]
            place = slab_stop

    def _get_slab(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        if self._slab is None or self._slab_start != start:
            # The old one goes first: one in memory, not two.
            self._slab = None
            slab = np.empty((stop - start, *self.info.shape[1:]), self.info.dtype)
            self._fill(slab, np.s_[start:stop])
            self._slab, self._slab_start = slab, start
        return self._slab

    def _read_region(
        self, image: int, rows: tuple[int, int], columns: tuple[int, int]
    ) -> np.ndarray[Any, Any]:
        part: tuple[slice, ...] = (slice(*rows), slice(*columns))
        shape: tuple[int, ...] = (rows[1] - rows[0], columns[1] - columns[0])
        if self.info.is_stack:
            part = (slice(image, image + 1), *part)
            shape = (1, *shape)
        # A channel axis of 1 may be left over.
        n_left = len(self.info.shape) - len(part)
        values = np.empty((*shape, *(1,) * n_left), dtype=self.info.dtype)
        self._fill(values, (*part, *(slice(None),) * n_left))
        return values

    def _fill(
        self, target: np.ndarray[Any, Any], part: slice | tuple[slice, ...]
    ) -> None:
        """Read part of the dataset into the whole of `target`."""
        if self._leaves_gaps:
            # As h5py's own `dataset[...]` does.
            target[...] = 0
        self._dataset.read_direct(target, source_sel=part)

    def _release(self) -> None:
        self._slab = None
        self._file.close()


def _leaves_gaps(dataset: h5py.Dataset) -> bool:
    """Whether HDF5 leaves memory as it is where nothing was ever written."""
    created_with = dataset.id.get_create_plist()
    never, undefined = h5py.h5d.FILL_TIME_NEVER, h5py.h5d.FILL_VALUE_UNDEFINED
    return bool(
        created_with.get_fill_time() == never
        or created_with.fill_value_defined() == undefined
    )


def _open_with_cache(
    file: h5py.File, key: str, layout: ChunkLayout | None
) -> h5py.Dataset:
    """Open a dataset with a cache for one row of an image's chunks.

    Regions of a large image that lie beside each other then inflate what they share
    once. Slabs need no cache: HDF5 takes each chunk once for one selection.
    """
    if layout is None or layout.slab_images > 1:
        return file[key]
    n_bytes = min(max(layout.row_bytes, _LEAST_CACHE_BYTES), MAX_KEPT_BYTES)
    n_chunks = n_bytes // layout.chunk_bytes
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    # 0.75 is HDF5's own default for what goes first.
    access.set_chunk_cache(10 * n_chunks + 521, n_bytes, 0.75)
    return h5py.Dataset(h5py.h5d.open(file.id, key.encode(), access))
