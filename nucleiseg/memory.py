"""Memory that was freed, given back to the system."""

import ctypes
import functools
from collections.abc import Callable


class Returns:
    """Gives freed memory back after every so many pixels.

    Arrays of some MB that threads make and free leave gaps in what the C library
    holds, which the next ones seldom fit into: without this a worker grew by 10 MB with
    each block of a large image. Giving back takes about 10 ms.

    Parameters
    ----------
    every_pixels : int
    """

    def __init__(self, every_pixels: int) -> None:
        self._every = every_pixels
        self._n_pixels = 0

    def add(self, n_pixels: int) -> None:
        """Take note of pixels that were computed, and give back when it is time."""
        self._n_pixels += n_pixels
        if self._n_pixels >= self._every:
            self._n_pixels = 0
            give_back()


def give_back() -> None:
    """Give back what nobody uses.

    Other systems than Linux with glibc have nothing like it, and are left alone.
    """
    trim = _find_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _find_trim() -> Callable[[int], int] | None:
    trim: Callable[[int], int] | None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim
