"""What an evaluation found: scores, and what was left out of them."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from nucleiseg.evaluation import text
from nucleiseg.metrics import CountScores, InstanceScores


@dataclass(frozen=True)
class DatasetScores:
    """Scores of one dataset; relative errors as fractions, NaN without true nuclei."""

    name: str
    n_images: int
    true_total: int
    predicted_total: int
    count_error: float
    bias: float
    counts: CountScores
    instances: InstanceScores | None
    """None unless both sides are label images."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of one prediction against one truth."""

    predicted: str
    truth: str
    n_images: int
    """Images compared."""
    n_failed: int
    """Images, and archives that could not be read, without a predicted count."""
    left_out: dict[str, int]
    """Why images were not compared, and how many of each (the failed ones too)."""
    counts: CountScores
    instances: InstanceScores | None
    """None unless both sides are label images."""
    datasets: tuple[DatasetScores, ...]
    """One each where there are several, else empty."""
    notes: tuple[str, ...]
    """What a reader must know of how instances were made."""

    def to_dict(self) -> dict[str, Any]:
        """Give everything as dicts, lists, strings and numbers, NaN as None."""
        content: dict[str, Any] = _to_plain(dataclasses.asdict(self))
        return content

    def to_text(self) -> str:
        """Give an aligned table for the terminal, without a newline at its end."""
        return text.write_table(self)


def _to_plain(value: Any) -> Any:
    """Turn nested results into what JSON can hold; NaN and infinities into None."""
    if isinstance(value, dict):
        return {key: _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
