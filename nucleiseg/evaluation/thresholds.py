"""Thresholds chosen on labelled images: foreground, seeds and smallest area, jointly.

Nuclei are labelled once for each pair of thresholds, without a smallest area. What
counts of a predicted nucleus is its area and the IoU of its match, so that every
smallest area is then only a sum over those that are large enough.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from nucleiseg.metrics import find_overlaps

IOU_THRESHOLDS = np.arange(50, 95, 5) / 100
"""0.50, 0.55 … 0.90."""

Figures = dict[str, NDArray[np.float64]]

AREAS_PX = (0, 4, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100)
"""Smallest areas that are tried, in pixels of the maps."""


@dataclass(frozen=True, eq=False)
class Found:
    """The predicted nuclei of one image, for one pair of thresholds."""

    areas: NDArray[np.float64]
    """(n,) px of the maps."""
    ious: NDArray[np.float64]
    """(n,) of the true nucleus each matches; 0 where it matches none."""
    n_true: int
    """True nuclei."""


@dataclass(frozen=True)
class Choice:
    """Thresholds, and what they come to on the images they were chosen on."""

    threshold: float
    seed_threshold: float
    min_area_px: int
    objective: float
    """AP at 0.50, plus mean AP from 0.50 to 0.90, minus count error, minus |bias|."""
    ap_50: float
    """Pooled."""
    mean_ap_50_90: float
    """Pooled."""
    count_error: float
    """Sum of |predicted - true| over sum of true."""
    bias: float
    """Sum of predicted - true over sum of true."""

    def as_dict(self) -> dict[str, float]:
        """Values for a file, rounded."""
        return {key: round(value, 5) for key, value in asdict(self).items()}


def measure_found(
    labels: NDArray[np.integer],
    truth: NDArray[np.integer],
    areas: NDArray[np.float64] | None = None,
) -> Found:
    """Measure the predicted nuclei of an image against the true ones.

    Parameters
    ----------
    labels, truth : (H, W) integer ndarray
        Label images, 0 = background.
    areas : (n + 1,) float64 ndarray, optional
        Area of each label 0…n in pixels of the maps, where these have another size; by
        default the pixels of `labels`.
    """
    overlaps = find_overlaps(labels, truth)
    there = np.flatnonzero(overlaps.predicted_areas)
    ious = np.zeros(len(overlaps.predicted_areas))
    ious[overlaps.matched_predicted] = overlaps.matched_iou
    sizes = overlaps.predicted_areas.astype(np.float64) if areas is None else areas
    return Found(sizes[there], ious[there], int(np.count_nonzero(overlaps.true_areas)))


class Table:
    """Sums for every candidate and image, of which any subset of images is scored.

    Parameters
    ----------
    pairs : sequence of (threshold, seed_threshold)
    images : iterable of sequence of Found
        For each image what was found with each pair.
    areas_px : sequence of int
        Smallest areas, in pixels of the maps.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[float, float]],
        images: Iterable[Sequence[Found]],
        areas_px: Sequence[int] = AREAS_PX,
    ) -> None:
        self._pairs = list(pairs)
        self._areas_px = tuple(areas_px)
        sums, n_true = [], []
        for image in images:
            sums.append([[_sum_up(one, least) for least in areas_px] for one in image])
            n_true.append(image[0].n_true)
        # (images, pairs, areas, predicted and right at each IoU)
        self._sums = np.array(sums, dtype=np.int64)
        self._n_true = np.array(n_true, dtype=np.int64)

    def __len__(self) -> int:
        """Give the number of images."""
        return len(self._n_true)

    def score(self, images: NDArray[np.intp] | None = None) -> Figures:
        """Score every candidate on some of the images, all by default.

        Returns
        -------
        dict of str to (pairs, areas) float64 ndarray
            The figures of :class:`Choice`, by their names.
        """
        chosen = np.arange(len(self)) if images is None else images
        sums, n_true = self._sums[chosen], self._n_true[chosen]
        predicted = sums[..., 0]
        total = max(1, int(n_true.sum()))
        hits = sums[..., 1:].sum(axis=0)
        n_predicted = predicted.sum(axis=0)
        aps = hits / np.maximum(1, n_predicted[..., None] + n_true.sum() - hits)
        errors = predicted - n_true[:, None, None]
        figures = {
            "ap_50": aps[..., 0],
            "mean_ap_50_90": aps.mean(axis=-1),
            "count_error": np.abs(errors).sum(axis=0) / total,
            "bias": errors.sum(axis=0) / total,
        }
        figures["objective"] = (
            figures["ap_50"]
            + figures["mean_ap_50_90"]
            - figures["count_error"]
            - np.abs(figures["bias"])
        )
        return figures

    def choose(self, images: NDArray[np.intp] | None = None) -> Choice:
        """Choose the candidate with the highest objective; of equal ones the first."""
        figures = self.score(images)
        objective = figures["objective"]
        pair, area = np.unravel_index(int(np.argmax(objective)), objective.shape)
        return self._make(int(pair), int(area), figures)

    def curve(self) -> list[dict[str, float]]:
        """List the best smallest area of each pair of thresholds, with its figures."""
        figures = self.score()
        best = figures["objective"].argmax(axis=1)
        return [
            self._make(pair, int(area), figures).as_dict()
            for pair, area in enumerate(best)
        ]

    def _make(self, pair: int, area: int, figures: Figures) -> Choice:
        threshold, seed_threshold = self._pairs[pair]
        return Choice(
            threshold=threshold,
            seed_threshold=seed_threshold,
            min_area_px=self._areas_px[area],
            **{name: float(values[pair, area]) for name, values in figures.items()},
        )


def _sum_up(found: Found, least_px: int) -> list[int]:
    """Count the predicted nuclei that are large enough, and those right at each IoU."""
    ious = found.ious[found.areas >= least_px]
    return [ious.size, *(int(np.count_nonzero(ious >= t)) for t in IOU_THRESHOLDS)]
