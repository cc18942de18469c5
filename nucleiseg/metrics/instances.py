"""Scores of matched instances: AP, F1, precision and recall, pooled and per image."""

from dataclasses import dataclass

import numpy as np

from nucleiseg.metrics.bootstrap import (
    Estimate,
    FloatArray,
    estimate,
    estimate_columns,
    ratio,
    resample_sums,
)
from nucleiseg.metrics.matching import IOU_THRESHOLDS, InstanceMatches
from nucleiseg.metrics.sizes import area_ranges


@dataclass(frozen=True)
class AreaScores:
    """Errors at IoU 0.50 among the nuclei of one class of area."""

    least_px: int
    largest_px: int | None
    """None in the last class, which has no end."""
    n_true: int
    """True nuclei of such an area."""
    missed: int
    """FN: those that no prediction matches."""
    n_predicted: int
    """Predicted nuclei of such an area."""
    false_positives: int
    """FP: those that match no true nucleus."""


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
    split_share: Estimate
    """Splits / true nuclei."""
    merges: int
    merge_share: Estimate
    """Merges / predicted nuclei."""
    thresholds: tuple[float, ...]
    ap_pooled: tuple[Estimate, ...]
    f1_pooled: tuple[Estimate, ...]
    precision_pooled: tuple[Estimate, ...]
    recall_pooled: tuple[Estimate, ...]
    ap_per_image: tuple[Estimate, ...]
    f1_per_image: tuple[Estimate, ...]
    mean_ap_pooled: Estimate
    """Mean of the pooled AP over thresholds 0.50 … 0.95."""
    mean_ap_pooled_50_90: Estimate
    mean_ap_per_image: Estimate
    """The Bowl's official score: thresholds 0.50 … 0.95, then images."""
    mean_ap_per_image_50_90: Estimate
    areas: tuple[AreaScores, ...]
    """Misses and false positives by size, the smallest nuclei first."""


def instance_scores(
    matches: InstanceMatches,
    *,
    rng: np.random.Generator | None = None,
    n_resamples: int = 1000,
) -> InstanceScores:
    """Score matched instances.

    At an IoU threshold t, of predicted and true nuclei with TP(t) matches:
    FP = predicted − TP, FN = true − TP, and

    - AP(t) = TP / (TP + FP + FN),
    - F1(t) = 2 TP / (2 TP + FP + FN),
    - precision(t) = TP / (TP + FP), recall(t) = TP / (TP + FN).

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

    References
    ----------
    StarDist, `stardist/matching.py`; Stringer et al., Nature Methods 18 (2021), 100;
    Caicedo et al., Nature Methods 16 (2019), 1247.
    """
    sums = resample_sums(instance_terms(matches), rng, n_resamples)
    figures = instance_figures(sums)

    def over_thresholds(name: str) -> tuple[Estimate, ...]:
        return estimate_columns(figures[name])

    def single(name: str) -> Estimate:
        return estimate(figures[name][:, 0])

    return InstanceScores(
        n_images=len(matches),
        n_empty=int(np.count_nonzero(matches.n_predicted + matches.n_true == 0)),
        n_true=int(matches.n_true.sum()),
        n_predicted=int(matches.n_predicted.sum()),
        splits=int(matches.splits.sum()),
        split_share=single("split_share"),
        merges=int(matches.merges.sum()),
        merge_share=single("merge_share"),
        thresholds=IOU_THRESHOLDS,
        ap_pooled=over_thresholds("ap_pooled"),
        f1_pooled=over_thresholds("f1_pooled"),
        precision_pooled=over_thresholds("precision_pooled"),
        recall_pooled=over_thresholds("recall_pooled"),
        ap_per_image=over_thresholds("ap_per_image"),
        f1_per_image=over_thresholds("f1_per_image"),
        mean_ap_pooled=single("mean_ap_pooled"),
        mean_ap_pooled_50_90=single("mean_ap_pooled_50_90"),
        mean_ap_per_image=single("mean_ap_per_image"),
        mean_ap_per_image_50_90=single("mean_ap_per_image_50_90"),
        areas=_score_areas(matches),
    )


def average_precision(matches: InstanceMatches) -> FloatArray:
    """Give AP(t) of each image, TP / (TP + FP + FN).

    Returns
    -------
    (n, 10) float64 ndarray, in [0, 1]
        Over IOU_THRESHOLDS; 1 where an image is empty on both sides.
    """
    hits = matches.true_positives
    objects = (matches.n_predicted + matches.n_true)[:, None]
    # TP + FP + FN = predicted + true − TP.
    return ratio(hits, objects - hits, undefined=1.0)


def instance_terms(matches: InstanceMatches) -> dict[str, FloatArray]:
    """Give the terms, each (n, k) float64, of whose sums the figures are made."""
    hits = matches.true_positives
    objects = (matches.n_predicted + matches.n_true)[:, None]
    terms = {
        "n": np.ones_like(objects),
        "hits": hits,
        "predicted": matches.n_predicted[:, None],
        "true": matches.n_true[:, None],
        "splits": matches.splits[:, None],
        "merges": matches.merges[:, None],
        "ap": average_precision(matches),
        "f1": ratio(2 * hits, objects, undefined=1.0),
    }
    return {name: np.asarray(term, np.float64) for name, term in terms.items()}


def instance_figures(sums: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Make the figures of sums of terms: rows as the sums have them.

    Returns
    -------
    dict of (rows, 10) or (rows, 1) float64 ndarray
        By the names that InstanceScores gives them.
    """
    hits, predicted, true = sums["hits"], sums["predicted"], sums["true"]
    # TP + FP + FN = predicted + true − TP, and 2TP + FP + FN = predicted + true.
    ap_pooled = ratio(hits, predicted + true - hits)
    ap_per_image = sums["ap"] / sums["n"]
    return {
        "ap_pooled": ap_pooled,
        "f1_pooled": ratio(2 * hits, predicted + true),
        "precision_pooled": ratio(hits, predicted),
        "recall_pooled": ratio(hits, true),
        "ap_per_image": ap_per_image,
        "f1_per_image": sums["f1"] / sums["n"],
        "mean_ap_pooled": ap_pooled.mean(axis=1, keepdims=True),
        "mean_ap_pooled_50_90": ap_pooled[:, :-1].mean(axis=1, keepdims=True),
        "mean_ap_per_image": ap_per_image.mean(axis=1, keepdims=True),
        "mean_ap_per_image_50_90": ap_per_image[:, :-1].mean(axis=1, keepdims=True),
        "split_share": ratio(sums["splits"], true),
        "merge_share": ratio(sums["merges"], predicted),
    }


def _score_areas(matches: InstanceMatches) -> tuple[AreaScores, ...]:
    columns = (
        matches.true_by_area,
        matches.missed_by_area,
        matches.predicted_by_area,
        matches.false_by_area,
    )
    totals = np.stack([column.sum(axis=0) for column in columns], axis=1)
    ranges = zip(area_ranges(), totals.tolist(), strict=True)
    return tuple(AreaScores(*area, *numbers) for area, numbers in ranges)
