"""Which values labels hold, and whether these may be a mask's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.errors import ArchiveError
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


def find_label_values(parts: Iterable[NDArray[Any]], *, name: str) -> LabelValues:
    """Find the values above 0 of an image's labels, and refuse what are no labels.

    Parameters
    ----------
    parts : iterable of ndarray
        At least one, of any shape but not empty, of bool, integers or floats.
    name : str
        Dataset and image, for messages.

    Raises
    ------
    ArchiveError
        A value is negative, a fraction, NaN, infinite or too large to be numbered.
    """
    # Each a pass over all, in which a reader may inflate: not twice.
    found = [_Part.of(part) for part in parts]
    _refuse_unfit(found, name)
    return join_label_values(
        [part.smallest for part in found], [part.high for part in found]
    )


def join_label_values(
    smallest: Sequence[float] | NDArray[np.float64],
    largest: Sequence[float] | NDArray[np.float64],
) -> LabelValues:
    """Find the values above 0 of several images, or parts of one, together."""
    highest = np.max(largest, initial=0)
    is_there = np.asarray(largest) > 0
    lowest = np.min(smallest, initial=highest, where=is_there)
    return LabelValues(float(lowest), float(highest))


@dataclass(frozen=True)
class _Part:
    """What some of an image's labels are."""

    dtype: str
    low: float
    high: float
    """NaN where all are."""
    smallest: float
    """Above 0, where any is."""
    is_finite: bool
    is_whole: bool

    @classmethod
    def of(cls, labels: NDArray[Any]) -> "_Part":
        # Unlike min and max, without NaN.
        low, high = (end.reduce(labels, axis=None) for end in (np.fmin, np.fmax))
        smallest = labels.min(initial=high, where=labels > 0)
        is_finite = is_whole = True
        if labels.dtype.kind == "f":
            finite = np.isfinite(labels)
            is_finite = bool(finite.all())
            is_whole = bool((labels == np.floor(labels)).all(where=finite))
        name = str(labels.dtype)
        return cls(name, float(low), float(high), float(smallest), is_finite, is_whole)


def _refuse_unfit(parts: Sequence[_Part], name: str) -> None:
    low, high = min(part.low for part in parts), max(part.high for part in parts)
    remedies = {
        "set NaN and infinite values to 0": all(part.is_finite for part in parts),
        "set negative values to 0": not low < 0,
        "make masks of fractions (y > 0.5)": all(part.is_whole for part in parts),
        "number them from 1 on": not high >= 2**63,
    }
    wanted = [remedy for remedy, is_fit in remedies.items() if not is_fit]
    if wanted:
        raise ArchiveError(
            f"{name}: {parts[0].dtype} from {low:g} to {high:g} are neither labels nor "
            "a mask, expected whole numbers, 0 where no nucleus is and from 1 on where "
            f"one is; {' and '.join(wanted)}"
        )
