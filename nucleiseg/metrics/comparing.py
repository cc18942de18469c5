"""Two methods compared on the same images, with the images resampled together."""

from dataclasses import dataclass

import numpy as np

from nucleiseg.metrics.bootstrap import Estimate, FloatArray, estimate, resample_sums
from nucleiseg.metrics.counts import count_figures, count_terms
from nucleiseg.metrics.instances import instance_figures, instance_terms
from nucleiseg.metrics.matching import InstanceMatches


@dataclass(frozen=True)
class Difference:
    """One figure of two methods."""

    first: float
    second: float
    difference: Estimate
    """second − first, and its 95 % bootstrap interval over images."""


def paired_bootstrap(
    first: InstanceMatches,
    second: InstanceMatches,
    *,
    rng: np.random.Generator,
    n_resamples: int = 1000,
) -> dict[str, Difference]:
    """Compare two methods on the same images.

    Hard images are hard for both, so the difference scatters less over resamples than
    either figure does: an interval that leaves out 0 tells the methods apart, where the
    two intervals of the figures themselves may well overlap.

    Parameters
    ----------
    first, second : InstanceMatches
        Of the same two images or more, in the same order.
    rng : numpy.random.Generator
        Source of the resampling.
    n_resamples : int
        Bootstrap samples of the images; each is drawn once, for both methods.

    Returns
    -------
    dict of Difference
        The single figures of InstanceScores and CountScores by their names there, and
        those at IoU 0.50 with `_50` at the end, such as `ap_pooled_50`.

    Raises
    ------
    ValueError
        If the true nuclei differ, so that the images cannot be the same, or there is
        no image.

    References
    ----------
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13.

    Examples
    --------
    >>> from nucleiseg.metrics import match_instances
    >>> truth = np.array([[[1, 0, 2]], [[1, 0, 0]], [[0, 0, 4]]])
    >>> found, none = match_instances(truth, truth), match_instances(0 * truth, truth)
    >>> both = paired_bootstrap(none, found, rng=np.random.default_rng(0))
    >>> both["ap_pooled_50"].difference
    Estimate(value=1.0, low=1.0, high=1.0)
    """
    if not np.array_equal(first.true_by_area, second.true_by_area):
        raise ValueError(
            f"the true nuclei of the {len(first)} and {len(second)} images differ; "
            "match both methods with the same truth, in the same order"
        )
    parts = [
        terms
        for matches in (first, second)
        for terms in (
            instance_terms(matches),
            count_terms(matches.n_predicted, matches.n_true),
        )
    ]
    # One table for all of it: row by row, both methods have the same images.
    sums = resample_sums(
        {(i, name): c for i, part in enumerate(parts) for name, c in part.items()},
        rng,
        n_resamples,
    )
    summed = [{name: sums[i, name] for name in part} for i, part in enumerate(parts)]
    ones = _make_figures(summed[0], summed[1])
    others = _make_figures(summed[2], summed[3])
    return {
        name: Difference(float(one[0]), float(other[0]), estimate(other - one))
        for (name, one), other in zip(ones.items(), others.values(), strict=True)
    }


def _make_figures(
    instances: dict[str, FloatArray], counts: dict[str, FloatArray]
) -> dict[str, FloatArray]:
    """Make every single figure, (1 + n_resamples,) float64, of the sums of terms."""
    figures = {**instance_figures(instances), **count_figures(counts)}
    return {
        name if samples.shape[1] == 1 else f"{name}_50": samples[:, 0]
        for name, samples in figures.items()
    }
