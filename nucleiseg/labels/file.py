"""The HDF5 file of label images, written from front to back.

All in one file, and no virtual datasets over the parts: of those a copy without its
parts reads as zeros, without a word, and ten thousand parts are more files than a
process may have open. The chunks of the parts are taken as they are, so that it is
made as fast as they can be read.
"""

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from nucleiseg.labels.encoding import LEVEL, choose_dtype, decode

# Of images that were labelled in blocks: blocks end anywhere, and one looks at parts.
_TILE_PX = 256
# An attribute of HDF5's oldest, and most readable, format has at most 64 kB.
_MOST_NAMED = 4096


class LabelFile:
    """Writes label images; the same ones in the same order give the same bytes.

    Parameters
    ----------
    path : Path
        Written anew.
    highest : int
        Highest label of all images, which decides between uint16 and uint32.
    """

    def __init__(self, path: Path, highest: int) -> None:
        # Locks fail on many network file systems; but what a site has set holds.
        is_set_by_site = "HDF5_USE_FILE_LOCKING" in os.environ
        # The oldest format: what has read HDF5 for twenty years reads it, and it keeps
        # no times of groups.
        self._file = h5py.File(
            path, "w", libver="earliest", locking=None if is_set_by_site else False
        )
        self._dtype = choose_dtype(highest)

    def __enter__(self) -> "LabelFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add_dataset(
        self, name: str, shape: tuple[int, ...], *, is_tiled: bool
    ) -> "LabelDataset":
        """Add the label images of a dataset, all of them 0 until they are written.

        Parameters
        ----------
        name : str
            Of :func:`name_dataset`.
        shape : tuple of int
            Of the dataset of images: (H, W), (N, H, W), or either with a channel axis
            of 1 at its end.
        is_tiled : bool
            Whether its images are written in regions, not whole.
        """
        return LabelDataset(self._file, name, shape, self._dtype, is_tiled=is_tiled)


class LabelDataset:
    """Writes the label images of one dataset; made by :meth:`LabelFile.add_dataset`."""

    def __init__(
        self,
        file: h5py.File,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        is_tiled: bool,
    ) -> None:
        self._dtype = dtype
        self._has_channel = len(shape) in (3, 4) and shape[-1] == 1
        grey = shape[:-1] if self._has_channel else shape
        self._is_stack = len(grey) == 3
        self._image_shape = (grey[-2], grey[-1])
        sides = self._image_shape
        if is_tiled:
            sides = (min(sides[0], _TILE_PX), min(sides[1], _TILE_PX))
        options = {}
        if 0 not in shape:  # which HDF5 has no chunks for
            options = {
                "chunks": (*(1,) * self._is_stack, *sides, *(1,) * self._has_channel),
                "compression": "gzip",
                "compression_opts": LEVEL,
                "shuffle": True,
            }
        # Without times, so that the same images give the same file.
        self._dataset = file.create_dataset(
            name, shape, dtype, track_times=False, **options
        )

    def write_image(self, index: int, data: bytes, n_nuclei: int) -> None:
        """Write a whole image, of a dataset that is not tiled.

        Parameters
        ----------
        index : int
            Position in the dataset.
        data : bytes
            Of :func:`encode`.
        n_nuclei : int
            Its highest label.

        Raises
        ------
        ValueError
            The bytes are damaged, where they are looked at.
        """
        if choose_dtype(n_nuclei) != self._dtype:
            labels = decode(data, self._image_shape)
            self.write_region(index, (slice(None), slice(None)), labels)
            return
        place = (*(index,) * self._is_stack, 0, 0, *(0,) * self._has_channel)
        self._dataset.id.write_direct_chunk(place, data)

    def write_region(
        self,
        index: int,
        core: tuple[slice, slice],
        labels: NDArray[np.integer[Any]],
    ) -> None:
        """Write a rectangle of an image.

        Parameters
        ----------
        index : int
            Position in the dataset.
        core : (slice, slice)
            Rows and columns.
        labels : (h, w) int ndarray

        Raises
        ------
        ValueError
            A label is higher than the file was made for.
        """
        highest = int(labels.max(initial=0))
        if not highest:
            return
        limit = np.iinfo(self._dtype).max
        if highest > limit:
            raise ValueError(f"label {highest} in a file of labels up to {limit}")
        place = (*(index,) * self._is_stack, *core, *(0,) * self._has_channel)
        self._dataset[place] = labels.astype(self._dtype, copy=False)

    def note(self, *, failed: list[int], n_missing: int) -> None:
        """Write which images are 0 because nothing is known of them, as attributes.

        `n_failed`, `failed` with the first 4,096 of them, and `n_missing` where a run
        is not complete.

        Parameters
        ----------
        failed : list of int
            Positions in the dataset.
        n_missing : int
            Images that are not computed yet.
        """
        attributes = self._dataset.attrs
        attributes["n_failed"] = np.int64(len(failed))
        if failed:
            attributes["failed"] = np.array(failed[:_MOST_NAMED], dtype=np.int64)
        if n_missing:
            attributes["n_missing"] = np.int64(n_missing)
