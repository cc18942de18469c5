"""The range of values that becomes 0 to 1, and the rule that finds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nucleiseg.config import PreprocessConfig
from nucleiseg.errors import ArchiveError

_LEAST_SPAN = 1e-30


@dataclass(frozen=True)
class Range:
    """Values of an image that become 0 and 1.

    Equal where the image is constant: it becomes 0 altogether. Under ``none`` they
    are 0 and 1, which keeps every value.
    """

    low: float
    """Becomes 0."""
    high: float
    """Becomes 1."""

    def as_dict(self) -> dict[str, str]:
        """Values for JSON, in hexadecimal so that no digit is lost."""
        return {"low": self.low.hex(), "high": self.high.hex()}

    @classmethod
    def from_dict(cls, values: Mapping[str, str]) -> "Range":
        """Make a range from what :meth:`as_dict` gave.

        Raises
        ------
        KeyError
            One of the two is missing.
        ValueError
            One of the two is no hexadecimal number.
        """
        return cls(float.fromhex(values["low"]), float.fromhex(values["high"]))


UNCHANGED = Range(0.0, 1.0)
"""The range under ``none``."""


@dataclass(frozen=True)
class Ranks:
    """Where in the ordered values of an image its two percentiles lie."""

    indices: tuple[int, int, int, int]
    """Ranks, from 0, below and above the low and then the high percentile."""
    weights: tuple[float, float]
    """Distance of each percentile from the rank below it, in [0, 1)."""

    @classmethod
    def find(cls, n_pixels: int, settings: PreprocessConfig) -> "Ranks":
        """Find the ranks among so many pixels; linear, as ``np.percentile``."""
        last = n_pixels - 1
        low = last * (settings.low_percentile / 100.0)
        high = last * (settings.high_percentile / 100.0)
        below, above = int(low), int(high)
        return cls(
            (below, min(below + 1, last), above, min(above + 1, last)),
            (low - below, high - above),
        )

    def interpolate(self, values: Sequence[float]) -> tuple[float, float]:
        """Find both percentiles from the values at the four ranks."""
        return (
            _interpolate(values[0], values[1], self.weights[0]),
            _interpolate(values[2], values[3], self.weights[1]),
        )


def _interpolate(below: float, above: float, weight: float) -> float:
    # From the nearer end, so that equal neighbours give their value exactly.
    if weight < 0.5:
        return below + (above - below) * weight
    return above - (above - below) * (1 - weight)


def make_range(low: float, high: float) -> Range:
    """Make a range that float32 can scale.

    Raises
    ------
    ArchiveError
        The range is too wide or too narrow.
    """
    span = high - low
    if span != 0 and not _LEAST_SPAN < span < 1 / _LEAST_SPAN:
        raise ArchiveError(
            f"image's values span {span:.3g}, which float32 cannot scale; multiply "
            "them into a usual range"
        )
    # The order of -0.0 and 0.0 depends on the way of sorting: there is one zero.
    return Range(low + 0.0, high + 0.0)


def refuse_not_finite() -> ArchiveError:
    """Make the error of an image with NaN or infinite values."""
    return ArchiveError("image holds NaN or infinite values; mask or clip them")


def refuse_empty() -> ArchiveError:
    """Make the error of an image without a pixel."""
    return ArchiveError("image holds no pixels; leave it out")
