"""Short lists and numbers for messages and tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from nucleiseg.metrics import Estimate

_N_LISTED = 5


def list_first(values: Iterable[object]) -> str:
    """Write the first few values, and how many there are where they are more."""
    words = [str(value) or "unnamed" for value in values]
    rest = f" … ({len(words)} in all)" if len(words) > _N_LISTED else ""
    return ", ".join(words[:_N_LISTED]) + rest


def list_images(rows: pd.DataFrame) -> str:
    """Write the first few images, each with its dataset where that has a name."""
    pairs = zip(rows["group"], rows["index"], strict=True)
    return "index " + list_first(
        [f"{index}{of_group(group)}" for group, index in pairs]
    )


def of_group(group: object) -> str:
    """Name a dataset after an image, where it has a name."""
    return f" of {group}" if group else ""


def list_reasons(left_out: Mapping[str, int]) -> str:
    """Write why images were left out, the commonest reasons first."""
    ranked = sorted(left_out.items(), key=lambda item: -item[1])
    return (
        list_first([f"{n} × {reason}" for reason, n in ranked]) or "none was left out"
    )


def number_of(value: float, digits: int) -> str:
    """Write a number, or a dash for one that is undefined."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def interval(estimate: Estimate, *, scale: float = 1, digits: int = 3) -> str:
    """Write the interval of a figure."""
    low, high = (number_of(scale * x, digits) for x in (estimate.low, estimate.high))
    return f"[{low}, {high}]"


def percent(part: int, whole: int) -> str:
    """Write a share in percent, or a dash where there is no whole."""
    return number_of(100 * part / whole if whole else math.nan, 1)
