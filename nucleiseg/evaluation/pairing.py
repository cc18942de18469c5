"""What pairing the images of two sides yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nucleiseg.errors import RunError
from nucleiseg.evaluation.wording import list_first

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    import pandas as pd

    from nucleiseg.metrics import InstanceMatches

NO_TRUTH = "the truth has no count"


@dataclass(frozen=True)
class Paired:
    """One row an image compared, and what was left out."""

    rows: pd.DataFrame
    """group (the predicted dataset's name), place (its number, whatever its name; of
    label images on both sides), index (of the image in it), predicted and true (all but
    the name int64)."""
    left_out: Counter[str]
    n_failed: int
    matches: InstanceMatches | None
    """None unless both sides are label images."""
    notes: list[str]


def check_equally_many(
    predicted: str, truth: str, found: Sequence[object], expected: Sequence[object]
) -> None:
    """Refuse two sides of different numbers of datasets, given by their names."""
    if len(found) != len(expected):
        raise RunError(
            f"{predicted}: {len(found)} datasets ({list_first(found)}), but {truth} "
            f"has {len(expected)} ({list_first(expected)}); name as many on both sides"
        )
