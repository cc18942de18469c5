"""The interface to the images of one dataset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from nucleiseg.archives.failures import DAMAGED_REMEDY, give_reason, make_error

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from nucleiseg.archives.datasets import DatasetInfo


class Reader(ABC):
    """Reads ranges of images of one dataset; a context manager.

    One reader serves one thread: open another for a second one. Reading forwards
    is the fast direction.
    """

    info: DatasetInfo
    """The dataset; `read` gives `info.dtype` and images of `info.image_shape`."""

    _failures: tuple[type[Exception], ...]
    """What the library below raises when the file is damaged."""

    def __init__(self, name: str, info: DatasetInfo) -> None:
        self.info = info
        self._name = f"{name}:{info.key}"
        self._is_closed = False

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Read the images `start` to `stop - 1`.

        Parameters
        ----------
        start, stop : int
            0 <= start <= stop <= `info.n_images`.

        Returns
        -------
        (stop - start, H, W) ndarray of `info.dtype`
            C-contiguous, in native byte order, values as stored; the caller's own.

        Raises
        ------
        ValueError
            For a range outside the dataset, or after `close`.
        ArchiveError
            Where the archive is damaged, naming dataset and range.
        """
        if self._is_closed:
            raise ValueError(f"{self._name} is closed; open another reader")
        n_images = self.info.n_images
        if not 0 <= start <= stop <= n_images:
            raise ValueError(
                f"{self._name} has {n_images} images; "
                f"[{start}, {stop}) is no range of them"
            )
        shape = (stop - start, *self.info.image_shape)
        if start == stop:
            return np.empty(shape, dtype=self.info.dtype)
        try:
            block = self._read_block(start, stop)
        except self._failures as error:
            last = stop - 1
            images = f"image {start}" if start == last else f"images {start} to {last}"
            raise make_error(
                self._name,
                f"{images} cannot be read ({give_reason(error)}); {DAMAGED_REMEDY}",
            ) from error
        return block.reshape(shape)

    @abstractmethod
    def _read_block(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Read a range of at least one image: as `read`, with any channel axis."""

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
