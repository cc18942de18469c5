"""What the table says of one image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleiseg.instances.labelling import count_touching
from nucleiseg.instances.maps import split_maps
from nucleiseg.instances.nuclei import Nuclei
from nucleiseg.instances.saturation import count_saturated
from nucleiseg.instances.scoring import find_rights, sum_rights
from nucleiseg.instances.sums import UNIT, mean_probability, sum_probabilities
from nucleiseg.quality import Calibration, Measures, find_flags, measure_image


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """What the table says of one image. Shares lie in [0, 1]."""

    count: int
    """Nuclei."""
    foreground_share: float
    """Share of pixels that belong to a nucleus."""
    mean_area_px: float | None
    """Mean area of the nuclei; None without any."""
    border_count: int
    """Nuclei that touch the image's edge."""
    saturated_share: float
    """Share of pixels at the largest value of the image's integer dtype; a float
    image is taken to end at 1, 255 or 65535, whichever first holds its maximum, or
    else at its maximum."""
    confidence: float | None
    """Share of the nuclei that are expected to be right, where the model was
    calibrated, else the mean foreground probability over their pixels; None without
    any nucleus."""
    flags: str = ""
    """What speaks against trusting the count, joined by `;` (see
    :func:`nucleiseg.quality.find_flags`); "" where nothing does."""


@dataclass(frozen=True)
class Tally:
    """What was counted in nuclei and pixels; all of it adds up, exactly."""

    count: int = 0
    """Nuclei."""
    n_foreground: int = 0
    """Pixels that belong to a nucleus."""
    border_count: int = 0
    """Nuclei that touch the image's edge."""
    probability_sum: int = 0
    """Sum of the nuclei's probabilities, in units of 2^-30 (see `sums`)."""
    right_sum: int = 0
    """Sum over the nuclei of how often such nuclei are right, in units of 2^-30; 0
    without a calibration."""

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.count + other.count,
            self.n_foreground + other.n_foreground,
            self.border_count + other.border_count,
            self.probability_sum + other.probability_sum,
            self.right_sum + other.right_sum,
        )

    def summarise(
        self,
        measures: Measures,
        *,
        n_saturated: int,
        calibration: Calibration | None,
        scale: float = 1.0,
    ) -> ImageSummary:
        """Make the table's figures of an image.

        Shares and the confidence are rounded to 4 decimals, areas to 2.

        Parameters
        ----------
        measures : Measures
            Of the image.
        n_saturated : int
            Its saturated pixels.
        calibration : Calibration or None
            What the nuclei were scored with.
        scale : float
            By how much the network saw the image enlarged.
        """
        n_pixels = measures.n_pixels
        return ImageSummary(
            count=self.count,
            foreground_share=round(self.n_foreground / n_pixels, 4),
            mean_area_px=(
                round(self.n_foreground / self.count, 2) if self.count else None
            ),
            border_count=self.border_count,
            saturated_share=round(n_saturated / n_pixels, 4),
            confidence=round(self._trust(calibration), 4) if self.count else None,
            flags=find_flags(
                measures,
                count=self.count,
                diameters_px=None if calibration is None else calibration.diameters_px,
                scale=scale,
            ),
        )

    def _trust(self, calibration: Calibration | None) -> float:
        if calibration is None:
            return mean_probability(self.probability_sum, self.n_foreground)
        return self.right_sum * UNIT / self.count


def summarise(
    image: NDArray[Any],
    maps: NDArray[np.float32],
    labels: NDArray[np.int32],
    *,
    calibration: Calibration | None = None,
    scale: float = 1.0,
    nuclei: Nuclei | None = None,
) -> ImageSummary:
    """Count the nuclei of a label image and say what may be wrong with the image.

    Parameters
    ----------
    image : (H, W) ndarray
        As stored, before normalisation.
    maps : (H, W, C) float32 ndarray, in [0, 1]
        The network's output: foreground probability, and marker map where C = 2.
    labels : (H, W) int32 ndarray
        0 = background, 1…n = nuclei.
    calibration : Calibration, optional
        The model's.
    scale : float
        By how much the network saw the image enlarged.
    nuclei : Nuclei, optional
        What :func:`measure_nuclei` says of this label image, with this calibration,
        where that is known; it saves time and changes nothing.

    Returns
    -------
    ImageSummary
        Shares and the confidence rounded to 4 decimals, areas to 2: sums of floats
        may differ in their last digits, tables must not.
    """
    count = int(labels.max(initial=0))
    tally, inside = Tally(), None
    if count:
        planes = split_maps(maps)
        inside = labels > 0
        keep = np.ones(count + 1, dtype=np.bool_)
        keep[0] = False
        tally = Tally(
            count=count,
            n_foreground=int(np.count_nonzero(inside)),
            border_count=(
                count_touching(labels, keep)
                if nuclei is None
                else int(np.count_nonzero(nuclei.at_border))
            ),
            # The threshold is not known here, and 0 is right for all of them.
            probability_sum=sum_probabilities(planes[0], inside, 0.0),
            right_sum=(
                find_rights(planes, labels, keep, calibration)
                if nuclei is None
                else sum_rights(nuclei.score_sums, nuclei.areas, calibration)
            ),
        )
    return tally.summarise(
        measure_image(image, inside),
        n_saturated=count_saturated(image),
        calibration=calibration,
        scale=scale,
    )
