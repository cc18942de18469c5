"""Which values labels hold, and whether these may be a mask's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.labels import MASK_VALUES


@dataclass(frozen=True)
class LabelValues:
    """The values above 0 of an image's labels, or of those of several images."""

    smallest: float
    """0 where there is no nucleus."""
    largest: float
    """0 where there is no nucleus."""

    @property
    def may_be_mask(self) -> bool:
        """Whether no value but 1, or but 255, is above 0, or none at all.

        Of one image a single nucleus, labelled so, looks the same: a dataset decides.
        """
        return self.smallest == self.largest and self.largest in (0, *MASK_VALUES)


def find_label_values(parts: Iterable[NDArray[Any]]) -> LabelValues:
    """Find the values above 0 of an image's labels, given in parts of any shape."""
    return join_label_values(*zip(*map(_find_ends, parts), strict=True))


def join_label_values(
    smallest: Sequence[float] | NDArray[np.float64],
    largest: Sequence[float] | NDArray[np.float64],
) -> LabelValues:
    """Find the values above 0 of several images, or parts of one, together."""
    highest = np.max(largest, initial=0)
    is_there = np.asarray(largest) > 0
    lowest = np.min(smallest, initial=highest, where=is_there)
    return LabelValues(float(lowest), float(highest))


def _find_ends(labels: NDArray[Any]) -> tuple[float, float]:
    largest = labels.max(initial=0)
    smallest = labels.min(initial=largest, where=labels > 0)
    return float(smallest), float(largest)
