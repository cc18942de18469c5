"""The interface to the images of one dataset."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from nucleiseg.archives.failures import DAMAGED_REMEDY, give_reason, make_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from nucleiseg.archives.datasets import DatasetInfo


class Reader(ABC):
    """Reads ranges of images of one dataset; a context manager.

    One reader serves one thread at a time: open another for a second one. Reading
    forwards is the fast direction.
    """

    info: DatasetInfo
    """The dataset; `read` gives `info.dtype` and images of `info.image_shape`."""

    _failures: tuple[type[Exception], ...]
    """What the library below raises when the file is damaged."""

    def __init__(self, name: str, info: DatasetInfo) -> None:
        self.info = info
        self._name = f"{name}:{info.key}"
        self._is_closed = False

    def read(
        self, start: int, stop: int, *, out: np.ndarray[Any, Any] | None = None
    ) -> np.ndarray[Any, Any]:
        """Read the images `start` to `stop - 1`.

        Parameters
        ----------
        start, stop : int
            0 <= start <= stop <= `info.n_images`.
        out : (stop - start, H, W) ndarray of `info.dtype`, optional
            Where to, C-contiguous; by default a new array.

        Returns
        -------
        (stop - start, H, W) ndarray of `info.dtype`
            C-contiguous, in native byte order, values as stored; the caller's own.

        Raises
        ------
        ValueError
            For a range outside the dataset, another `out`, or after `close`.
        ArchiveError
            Where the archive is damaged, naming dataset and range.
        """
        self._check_range(start, stop, self.info.n_images, "images")
        shape = (stop - start, *self.info.image_shape)
        if out is None:
            out = np.empty(shape, dtype=self.info.dtype)
        elif (out.shape, out.dtype) != (shape, np.dtype(self.info.dtype)) or not (
            out.flags.c_contiguous and out.flags.writeable
        ):
            raise ValueError(
                f"out is {out.shape} {out.dtype}, expected {shape} {self.info.dtype}, "
                "C-contiguous and writeable"
            )
        if start == stop:
            return out
        last = stop - 1
        images = f"image {start}" if start == last else f"images {start} to {last}"
        with self._name_failures(images):
            self._read_block(start, stop, out)
        return out

    def read_region(
        self, image: int, rows: tuple[int, int], columns: tuple[int, int]
    ) -> np.ndarray[Any, Any]:
        """Read part of one image, with memory in proportion to the part.

        Whatever is compressed is inflated in the pieces it was compressed in: regions
        in the order of rows, as wide as the image, are the fast way.

        Parameters
        ----------
        image : int
            0 <= image < `info.n_images`.
        rows, columns : (start, stop)
            Within `info.image_shape`.

        Returns
        -------
        (rows, columns) ndarray of `info.dtype`
            C-contiguous, in native byte order, values as stored; the caller's own.

        Raises
        ------
        ValueError
            For what lies outside the dataset, or after `close`.
        ArchiveError
            Where the archive is damaged, naming dataset and image.
        """
        height, width = self.info.image_shape
        self._check_range(image, image + 1, self.info.n_images, "images")
        self._check_range(*rows, height, "rows")
        self._check_range(*columns, width, "columns")
        shape = (rows[1] - rows[0], columns[1] - columns[0])
        if 0 in shape:
            return np.empty(shape, dtype=self.info.dtype)
        with self._name_failures(f"image {image}"):
            region = self._read_region(image, rows, columns)
        return region.reshape(shape)

    def _check_range(self, start: int, stop: int, n_most: int, things: str) -> None:
        if self._is_closed:
            raise ValueError(f"{self._name} is closed; open another reader")
        if not 0 <= start <= stop <= n_most:
            raise ValueError(
                f"{self._name} has {n_most} {things}; "
                f"[{start}, {stop}) is no range of them"
            )

    @contextlib.contextmanager
    def _name_failures(self, images: str) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            raise make_error(
                self._name,
                f"{images} cannot be read ({give_reason(error)}); {DAMAGED_REMEDY}",
            ) from error

    @abstractmethod
    def _read_block(self, start: int, stop: int, out: np.ndarray[Any, Any]) -> None:
        """Read a range of at least one image into `out`, as `read` does."""

    @abstractmethod
    def _read_region(
        self, image: int, rows: tuple[int, int], columns: tuple[int, int]
    ) -> np.ndarray[Any, Any]:
        """Read a part of at least one pixel: as `read_region`, with any axes of 1."""

    def close(self) -> None:
        """Close the archive; a second time does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._release()

    @abstractmethod
    def _release(self) -> None:
        """Close what is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
