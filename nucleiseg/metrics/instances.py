"""Scores of matched instances: AP and F1, pooled and per image."""

from dataclasses import dataclass

import numpy as np

from nucleiseg.metrics.bootstrap import (
    Estimate,
    estimate,
    estimate_columns,
    ratio,
    resample_sums,
)
from nucleiseg.metrics.matching import IOU_THRESHOLDS, InstanceMatches


@dataclass(frozen=True)
class InstanceScores:
    """Scores of matched instances; tuples run over `thresholds`.

    *Pooled*: TP, FP and FN are summed over the images first (StarDist's default).
    *Per image*: each image is scored, then the mean is taken (the Bowl's score); there
    an image empty on both sides scores 1, since nothing was to be found and nothing
    was. Pooled over nothing but such images, a score is undefined.
    """

    n_images: int
    n_empty: int
    """Images without nuclei on either side."""
    n_true: int
    n_predicted: int
    splits: int
    merges: int
    thresholds: tuple[float, ...]
    ap_pooled: tuple[Estimate, ...]
    f1_pooled: tuple[Estimate, ...]
    ap_per_image: tuple[Estimate, ...]
    f1_per_image: tuple[Estimate, ...]
    mean_ap_pooled: Estimate
    """Mean of the pooled AP over thresholds 0.50 … 0.95."""
    mean_ap_pooled_50_90: Estimate
    mean_ap_per_image: Estimate
    """The Bowl's official score: thresholds 0.50 … 0.95, then images."""
    mean_ap_per_image_50_90: Estimate


def instance_scores(
    matches: InstanceMatches,
    *,
    rng: np.random.Generator | None = None,
    n_resamples: int = 1000,
) -> InstanceScores:
    """Score matched instances: AP(t) = TP/(TP+FP+FN), F1(t) = 2TP/(2TP+FP+FN).

    AP is what StarDist, Cellpose and the 2018 Data Science Bowl call so, not the area
    under a precision–recall curve.

    Parameters
    ----------
    matches : InstanceMatches
        Of one image or more.
    rng : numpy.random.Generator, optional
        Source of the resampling; without it no intervals are made.
    n_resamples : int
        Bootstrap samples of the images.

    Raises
    ------
    ValueError
        If there is no image.
    """
    hits = matches.true_positives.astype(np.float64)
    objects = (matches.n_predicted + matches.n_true).astype(np.float64)[:, None]
    # TP + FP + FN = predicted + true − TP, and 2TP + FP + FN = predicted + true.
    columns = {
        "hits": hits,
        "objects": objects,
        "n": np.ones_like(objects),
        "ap": ratio(hits, objects - hits, undefined=1.0),
        "f1": ratio(2 * hits, objects, undefined=1.0),
    }
    sums = resample_sums(columns, rng, n_resamples)
    ap_pooled = ratio(sums["hits"], sums["objects"] - sums["hits"])
    ap_per_image = sums["ap"] / sums["n"]
    return InstanceScores(
        n_images=len(objects),
        n_empty=int(np.count_nonzero(objects == 0)),
        n_true=int(matches.n_true.sum()),
        n_predicted=int(matches.n_predicted.sum()),
        splits=int(matches.splits.sum()),
        merges=int(matches.merges.sum()),
        thresholds=IOU_THRESHOLDS,
        ap_pooled=estimate_columns(ap_pooled),
        f1_pooled=estimate_columns(ratio(2 * sums["hits"], sums["objects"])),
        ap_per_image=estimate_columns(ap_per_image),
        f1_per_image=estimate_columns(sums["f1"] / sums["n"]),
        mean_ap_pooled=estimate(ap_pooled.mean(axis=1)),
        mean_ap_pooled_50_90=estimate(ap_pooled[:, :-1].mean(axis=1)),
        mean_ap_per_image=estimate(ap_per_image.mean(axis=1)),
        mean_ap_per_image_50_90=estimate(ap_per_image[:, :-1].mean(axis=1)),
    )
