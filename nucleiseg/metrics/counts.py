"""Scores of counts: how far the number of nuclei is off."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleiseg.metrics.bootstrap import (
    Estimate,
    FloatArray,
    estimate,
    ratio,
    resample_sums,
)


@dataclass(frozen=True)
class CountScores:
    """Errors of the counts of n images; shares and relative errors as fractions."""

    n_images: int
    n_without_nuclei: int
    """Images without true nuclei: they are left out of `mape`, and of nothing else."""
    true_total: int
    predicted_total: int
    mae: Estimate
    """Mean |predicted − true|, in nuclei per image."""
    mape: Estimate
    """Mean |predicted − true| / true over the images with true nuclei."""
    count_error: Estimate
    """Σ|predicted − true| / Σ true."""
    bias: Estimate
    """Σ(predicted − true) / Σ true; negative: too few are counted."""
    r2: Estimate
    """1 − Σ(predicted − true)² / Σ(true − mean)²: of the counts themselves, not of a
    line fitted through them; undefined where all true counts are equal."""
    exact: Estimate
    """Share of images with no error."""
    within_5_percent: Estimate
    """Share of images with |predicted − true| ≤ 0.05 true (without nuclei: exact)."""
    within_10_percent: Estimate
    """Share of images with |predicted − true| ≤ 0.10 true (without nuclei: exact)."""


def count_scores(
    predicted_counts: NDArray[np.integer],
    true_counts: NDArray[np.integer],
    *,
    rng: np.random.Generator | None = None,
    n_resamples: int = 1000,
) -> CountScores:
    """Score counts against true counts; error = predicted − true.

    Parameters
    ----------
    predicted_counts, true_counts : (n,) integer ndarray, ≥ 0
        Nuclei in each of the same images, in the same order.
    rng : numpy.random.Generator, optional
        Source of the resampling; without it no intervals are made.
    n_resamples : int
        Bootstrap samples of the images.

    Raises
    ------
    ValueError
        If the shapes differ or there is no image.

    Examples
    --------
    >>> count_scores(np.array([9, 0]), np.array([10, 0])).count_error.value
    0.1
    """
    if predicted_counts.shape != true_counts.shape or predicted_counts.ndim != 1:
        shapes = f"{predicted_counts.shape} and {true_counts.shape}"
        raise ValueError(f"counts must be two vectors of one length, found {shapes}")
    terms = count_terms(predicted_counts, true_counts)
    figures = count_figures(resample_sums(terms, rng, n_resamples))
    return CountScores(
        n_images=len(true_counts),
        n_without_nuclei=int(np.count_nonzero(true_counts == 0)),
        true_total=int(true_counts.sum()),
        predicted_total=int(predicted_counts.sum()),
        **{name: estimate(samples[:, 0]) for name, samples in figures.items()},
    )


def count_figures(sums: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Make the figures of sums of terms: rows as the sums have them.

    Returns
    -------
    dict of (rows, 1) float64 ndarray
        By the names that CountScores gives them.
    """
    n = sums["n"]
    spread = n * sums["centred²"] - sums["centred"] ** 2
    return {
        "mae": sums["|error|"] / n,
        "mape": ratio(sums["relative"], sums["has_nuclei"]),
        "count_error": ratio(sums["|error|"], sums["true"]),
        "bias": ratio(sums["error"], sums["true"]),
        "r2": 1 - ratio(n * sums["error²"], spread),
        "exact": sums["exact"] / n,
        "within_5_percent": sums["within_5"] / n,
        "within_10_percent": sums["within_10"] / n,
    }


def count_terms(
    predicted: NDArray[np.integer], truth: NDArray[np.integer]
) -> dict[str, FloatArray]:
    """Give the terms, each (n, 1) float64, of whose sums the count scores are made."""
    true = truth.astype(np.int64)
    error = predicted.astype(np.int64) - true
    size = np.abs(error)
    # R² takes the difference of two sums of squares: centring keeps them small, and a
    # whole number keeps them exact, so that no spread is 0 and not nearly 0.
    centred = true - (round(float(true.mean())) if len(true) else 0)
    terms = {
        "n": np.ones_like(true),
        "true": true,
        "error": error,
        "|error|": size,
        "error²": error**2,
        "centred": centred,
        "centred²": centred**2,
        "has_nuclei": true > 0,
        "relative": ratio(size, true, undefined=0.0),
        "exact": error == 0,
        "within_5": 20 * size <= true,
        "within_10": 10 * size <= true,
    }
    return {name: np.asarray(term, np.float64)[:, None] for name, term in terms.items()}
