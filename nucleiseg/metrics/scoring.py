"""Label images in memory, scored in one call."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleiseg.metrics.counts import CountScores, count_scores
from nucleiseg.metrics.instances import InstanceScores, instance_scores
from nucleiseg.metrics.matching import InstanceMatches, match_label_images


@dataclass(frozen=True)
class LabelScores:
    """All scores of label images, and the matches that they are made of."""

    counts: CountScores
    instances: InstanceScores
    matches: InstanceMatches
    """For `paired_bootstrap` with another method on the same images."""


def score_label_images(
    predicted: Iterable[NDArray[np.integer]],
    truth: Iterable[NDArray[np.integer]],
    *,
    rng: np.random.Generator | None = None,
    n_resamples: int = 1000,
) -> LabelScores:
    """Score predicted label images against true ones.

    Parameters
    ----------
    predicted, truth : iterable of (H, W) integer ndarray
        0 = background; labels need not be consecutive. Equally many, one image at
        least; sizes may differ from image to image. One pair is held at a time.
    rng : numpy.random.Generator, optional
        Source of the bootstrap over images; without it no intervals are made.
    n_resamples : int
        Bootstrap samples of the images.

    Raises
    ------
    ValueError
        If one side has more images, the shapes of a pair differ, or there is no image.

    Examples
    --------
    >>> one, two = np.array([[1, 1, 0, 2]]), np.array([[4, 4, 0, 0]])
    >>> scores = score_label_images([two], [one])
    >>> scores.instances.ap_pooled[0].value, scores.counts.bias.value
    (0.5, -0.5)
    """
    matches = match_label_images(predicted, truth)
    return LabelScores(
        counts=count_scores(
            matches.n_predicted, matches.n_true, rng=rng, n_resamples=n_resamples
        ),
        instances=instance_scores(matches, rng=rng, n_resamples=n_resamples),
        matches=matches,
    )
