"""The evaluation itself: pair two sides, score what is paired."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nucleiseg.evaluation.comparison import Comparison, compare
from nucleiseg.evaluation.results import DatasetScores, Evaluation
from nucleiseg.metrics import count_scores, instance_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nucleiseg.evaluation.pairing import Paired
    from nucleiseg.metrics import CountScores, InstanceScores


def evaluate(
    predicted: str,
    truth: str | Sequence[str],
    *,
    min_true_area_px: int = 0,
    rng: np.random.Generator | None = None,
) -> Evaluation:
    """Score predicted counts or label images against true ones.

    Parameters
    ----------
    predicted, truth, min_true_area_px
        As in :func:`compare`.
    rng : numpy.random.Generator, optional
        Source of the bootstrap; by default one of seed 0, so that equal input gives
        equal intervals.

    Returns
    -------
    Evaluation
        Intervals are 95 % bootstrap intervals over images.

    Raises
    ------
    RunError
        If a table is not usable or the images of the two sides do not pair up.
    ArchiveError
        If label images cannot be found or read.
    """
    return score(compare(predicted, truth, min_true_area_px=min_true_area_px), rng=rng)


def score(
    comparison: Comparison, *, rng: np.random.Generator | None = None
) -> Evaluation:
    """Score what is paired; `rng` as in :func:`evaluate`."""
    import pandas as pd

    paired = comparison.paired
    rng = rng or np.random.default_rng(0)
    rows = paired.rows
    counts, instances = _score_images(paired, np.arange(len(rows)), rng)
    # Drawn after those of all images, whose intervals do not depend on the grouping.
    # Two datasets may have one name.
    places, _ = pd.factorize(rows["place"])
    names = rows.drop_duplicates("place")["group"].astype(str).tolist()
    datasets = [
        _score_dataset(
            name, *_score_images(paired, np.flatnonzero(places == place), rng)
        )
        for place, name in enumerate(names)
        if len(names) > 1
    ]
    return Evaluation(
        predicted=comparison.found.name,
        truth=comparison.expected.name,
        n_images=len(rows),
        n_failed=paired.n_failed,
        left_out=dict(paired.left_out.most_common()),
        counts=counts,
        instances=instances,
        datasets=tuple(datasets),
        notes=tuple(paired.notes),
    )


def _score_images(
    paired: Paired, images: NDArray[np.intp], rng: np.random.Generator
) -> tuple[CountScores, InstanceScores | None]:
    """Score some of the images that were paired, by their positions."""
    rows = paired.rows.iloc[images]
    counts = count_scores(
        rows["predicted"].to_numpy(), rows["true"].to_numpy(), rng=rng
    )
    if paired.matches is None:
        return counts, None
    return counts, instance_scores(paired.matches.select(images), rng=rng)


def _score_dataset(
    name: str, counts: CountScores, instances: InstanceScores | None
) -> DatasetScores:
    return DatasetScores(
        name=name,
        n_images=counts.n_images,
        true_total=counts.true_total,
        predicted_total=counts.predicted_total,
        count_error=counts.count_error.value,
        bias=counts.bias.value,
        counts=counts,
        instances=instances,
    )
