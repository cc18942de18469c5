"""From a nucleus' score to how often a nucleus of such a score is right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Calibration:
    """What a model's validation images say of its nuclei.

    The score of a nucleus is the mean of the network's marker map over its pixels, or
    that of its foreground probability where it has no marker map.
    """

    scores: tuple[float, ...]
    """Knots, rising, at least one."""
    shares: tuple[float, ...]
    """Share of nuclei of each score that are right (IoU of 0.5 or more with a true
    one), not falling."""
    diameters_px: tuple[float, float] | None = None
    """Smallest and largest typical diameter of an image's nuclei, px as the network
    sees them."""

    def __post_init__(self) -> None:
        scores, shares = np.array(self.scores), np.array(self.shares)
        if not (
            0 < len(scores) == len(shares)
            and np.isfinite(scores).all()
            and (np.diff(scores) > 0).all()
            and (np.diff(shares) >= 0).all()
            and 0 <= shares[0] <= shares[-1] <= 1
        ):
            raise ValueError(
                f"calibration has scores {self.scores} and shares {self.shares}, "
                "expected as many rising scores as shares that do not fall, from 0 to "
                "1; calibrate anew"
            )
        known = self.diameters_px
        if known is not None and not 0 < known[0] <= known[1]:
            raise ValueError(
                f"calibration has diameters from {known[0]} to {known[1]} px, expected "
                "a range above 0; calibrate anew"
            )

    def apply(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Find the share of nuclei of a score that are right, linear between knots.

        Parameters
        ----------
        scores : (n,) float64 ndarray, in [0, 1]

        Returns
        -------
        (n,) float64 ndarray, in [0, 1]
        """
        found: NDArray[np.float64] = np.interp(scores, self.scores, self.shares)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Values for JSON."""
        known = self.diameters_px
        return {
            "scores": list(self.scores),
            "shares": list(self.shares),
            "diameters_px": None if known is None else list(known),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Calibration":
        """Make a calibration from what :meth:`as_dict` gave.

        Raises
        ------
        KeyError, TypeError, ValueError
            It is damaged.
        """
        known = values["diameters_px"]
        return cls(
            _as_floats(values["scores"]),
            _as_floats(values["shares"]),
            None if known is None else (float(known[0]), float(known[1])),
        )


def _as_floats(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
