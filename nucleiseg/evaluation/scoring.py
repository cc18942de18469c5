"""The evaluation itself: pair two sides, score what is paired."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nucleiseg.errors import RunError
from nucleiseg.evaluation.count_pairs import pair_counts
from nucleiseg.evaluation.label_pairs import pair_labels
from nucleiseg.evaluation.results import DatasetScores, Evaluation
from nucleiseg.evaluation.tables import is_table
from nucleiseg.evaluation.wording import list_reasons
from nucleiseg.metrics import count_scores, instance_scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nucleiseg.evaluation.pairing import Paired
    from nucleiseg.metrics import CountScores, InstanceScores


def evaluate(
    predicted: str,
    truth: str,
    *,
    min_true_area_px: int = 0,
    rng: np.random.Generator | None = None,
) -> Evaluation:
    """Score predicted counts or label images against true ones.

    A dataset of bool or float, or one whose only value above 0 is 1 (or 255), holds
    masks: its instances are the 8-connected components of what is above 0.5, and the
    result's notes say so. Any other dataset of integers holds instance labels.

    Parameters
    ----------
    predicted, truth : str
        A table (`.csv` or `.parquet`) with columns index and count, or `ARCHIVE:KEY`,
        label images in an npz or HDF5 archive; KEY may be a glob over datasets.
    min_true_area_px : int
        True nuclei of a smaller area become background (truth of label images only).
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
    if is_table(truth) and min_true_area_px > 0:
        raise RunError(
            f"{truth}: a least area of {min_true_area_px} px needs label images as "
            "truth, found a table; leave it at 0 or name ARCHIVE:KEY"
        )
    if is_table(predicted) or is_table(truth):
        paired = pair_counts(predicted, truth, min_true_area_px)
    else:
        paired = pair_labels(predicted, truth, min_true_area_px)
    if paired.rows.empty:
        raise RunError(
            f"{predicted}: no image is left to compare with {truth}, expected one at "
            f"least ({list_reasons(paired.left_out)}); mend the failed images first"
        )
    return _score(predicted, truth, paired, rng or np.random.default_rng(0))


def _score(
    predicted: str, truth: str, paired: Paired, rng: np.random.Generator
) -> Evaluation:
    import pandas as pd

    rows = paired.rows
    counts, instances = _score_images(paired, np.arange(len(rows)), rng)
    # Drawn after those of all images, whose intervals do not depend on the grouping.
    places, names = pd.factorize(rows["group"])
    datasets = [
        _score_dataset(
            name, *_score_images(paired, np.flatnonzero(places == place), rng)
        )
        for place, name in enumerate(names.astype(str).tolist())
        if len(names) > 1
    ]
    return Evaluation(
        predicted=predicted,
        truth=truth,
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
