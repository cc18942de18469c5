"""How good counts and instances are: IoU, AP, F1, splits, merges, count errors.

Pure NumPy, arrays in and frozen results out. Every figure is a function of sums over
images, so one formula gives the figure itself and, on sums over resampled images, its
95 % bootstrap interval. Undefined figures are NaN, never 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

IOU_THRESHOLDS: tuple[float, ...] = tuple(k / 100 for k in range(50, 100, 5))
"""0.50, 0.55 … 0.95, the thresholds of the 2018 Data Science Bowl.

Written as quotients: they round as the quotient of two areas does, so that an IoU of
exactly 11/20 reaches the threshold 0.55 (`np.arange` would miss some)."""

# Draws of images that are held at once while resampling: 16 MB.
_DRAWS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % bootstrap interval over images.

    All three are NaN where the figure is undefined; `low` and `high` also where no
    interval was asked for or there are fewer than two images.
    """

    value: float
    low: float
    high: float


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


@dataclass(frozen=True)
class InstanceMatches:
    """What was matched in each of n images, at each of the IoU_THRESHOLDS."""

    n_predicted: IntArray
    """(n,) int64, predicted nuclei."""
    n_true: IntArray
    """(n,) int64, true nuclei."""
    true_positives: IntArray
    """(n, 10) int64, matched pairs; FP = n_predicted − TP, FN = n_true − TP."""
    splits: IntArray
    """(n,) int64, true nuclei to which two or more predictions belong."""
    merges: IntArray
    """(n,) int64, predictions to which two or more true nuclei belong."""


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


def count_instances(labels: NDArray[np.integer], min_area_px: int = 0) -> IntArray:
    """Count the distinct labels above 0 in each image.

    Parameters
    ----------
    labels : (n, H, W) or (H, W) integer ndarray
        Label images, 0 = background; labels need not be consecutive.
    min_area_px : int
        Nuclei of a smaller area are not counted.

    Returns
    -------
    (n,) int64 ndarray
        With n = 1 for one image.

    Raises
    ------
    ValueError
        If `labels` is not integer, is negative somewhere, or is no stack of images.

    Examples
    --------
    >>> count_instances(np.array([[0, 7, 7], [3, 0, 0]]), 2)
    array([1])
    """
    areas = (np.bincount(_flat_labels(image)) for image in _stack(labels))
    least_px = max(1, min_area_px)
    return np.array([np.count_nonzero(a[1:] >= least_px) for a in areas], np.int64)


def remove_small_instances(
    labels: NDArray[np.integer], min_area_px: int
) -> NDArray[np.integer]:
    """Turn nuclei below an area into background.

    Parameters
    ----------
    labels : (n, H, W) integer ndarray
        Label images, 0 = background.
    min_area_px : int
        The least area that stays; up to 1, everything does.

    Returns
    -------
    (n, H, W) integer ndarray
        Of the dtype of `labels`, which is not changed; labels keep their values.
    """
    if min_area_px <= 1:
        return labels
    kept = labels.copy()
    for image in kept:
        flat = _flat_labels(image)
        small = np.bincount(flat) < min_area_px
        image[small[flat].reshape(image.shape)] = 0
    return kept


def match_instances(
    predicted: NDArray[np.integer], truth: NDArray[np.integer]
) -> InstanceMatches:
    """Match predicted to true nuclei one to one by IoU, and find splits and merges.

    A pair matches at threshold t if IoU ≥ t (as in StarDist and Cellpose). Above 0.5 a
    match is unique. At exactly 0.5 one nucleus may be cut into two equal halves, or
    two equal ones joined; one of the two pairs is then taken, the other is not.

    A prediction *belongs* to a true nucleus if more than half of its area lies in it,
    and a true nucleus to a prediction likewise: each belongs to one at most. A *split*
    is a true nucleus to which two or more predictions belong, a *merge* a prediction to
    which two or more true nuclei do. Specks count: one of a few pixels inside a nucleus
    that is otherwise well predicted makes a split.

    Parameters
    ----------
    predicted, truth : (n, H, W) or (H, W) integer ndarray
        Label images, 0 = background; labels need not be consecutive.

    Returns
    -------
    InstanceMatches
        One entry an image.

    Raises
    ------
    ValueError
        If the shapes differ, or either is no integer stack of values ≥ 0.

    References
    ----------
    StarDist, `stardist/matching.py`; Caicedo et al., Nature Methods 16 (2019), 1247.

    Examples
    --------
    >>> one, two = np.array([[1, 1, 1, 1]]), np.array([[5, 5, 9, 9]])
    >>> match_instances(two, one).splits, match_instances(one, two).merges
    (array([1]), array([1]))
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"shapes differ: {predicted.shape} and {truth.shape}")
    pairs = zip(_stack(predicted), _stack(truth), strict=True)
    rows = [_match_image(p, t) for p, t in pairs]
    table = np.array(rows, np.int64).reshape(-1, 4 + len(IOU_THRESHOLDS))
    return InstanceMatches(
        n_predicted=table[:, 0],
        n_true=table[:, 1],
        splits=table[:, 2],
        merges=table[:, 3],
        true_positives=table[:, 4:],
    )


def concatenate_matches(pieces: list[InstanceMatches]) -> InstanceMatches:
    """Join the matches of pieces of a data set, in order (one piece or more)."""
    return InstanceMatches(
        n_predicted=np.concatenate([piece.n_predicted for piece in pieces]),
        n_true=np.concatenate([piece.n_true for piece in pieces]),
        true_positives=np.concatenate([piece.true_positives for piece in pieces]),
        splits=np.concatenate([piece.splits for piece in pieces]),
        merges=np.concatenate([piece.merges for piece in pieces]),
    )


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
        "ap": _ratio(hits, objects - hits, undefined=1.0),
        "f1": _ratio(2 * hits, objects, undefined=1.0),
    }
    sums = _resampled_sums(columns, rng, n_resamples)
    ap_pooled = _ratio(sums["hits"], sums["objects"] - sums["hits"])
    ap_per_image = sums["ap"] / sums["n"]
    return InstanceScores(
        n_images=len(objects),
        n_empty=int(np.count_nonzero(objects == 0)),
        n_true=int(matches.n_true.sum()),
        n_predicted=int(matches.n_predicted.sum()),
        splits=int(matches.splits.sum()),
        merges=int(matches.merges.sum()),
        thresholds=IOU_THRESHOLDS,
        ap_pooled=_estimates(ap_pooled),
        f1_pooled=_estimates(_ratio(2 * sums["hits"], sums["objects"])),
        ap_per_image=_estimates(ap_per_image),
        f1_per_image=_estimates(sums["f1"] / sums["n"]),
        mean_ap_pooled=_estimate(ap_pooled.mean(axis=1)),
        mean_ap_pooled_50_90=_estimate(ap_pooled[:, :-1].mean(axis=1)),
        mean_ap_per_image=_estimate(ap_per_image.mean(axis=1)),
        mean_ap_per_image_50_90=_estimate(ap_per_image[:, :-1].mean(axis=1)),
    )


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
    columns = _count_columns(predicted_counts, true_counts)
    sums = {
        name: column[:, 0]
        for name, column in _resampled_sums(columns, rng, n_resamples).items()
    }
    n = sums["n"]
    spread = n * sums["centred²"] - sums["centred"] ** 2
    return CountScores(
        n_images=len(true_counts),
        n_without_nuclei=int(np.count_nonzero(true_counts == 0)),
        true_total=int(true_counts.sum()),
        predicted_total=int(predicted_counts.sum()),
        mae=_estimate(sums["|error|"] / n),
        mape=_estimate(_ratio(sums["relative"], sums["has_nuclei"])),
        count_error=_estimate(_ratio(sums["|error|"], sums["true"])),
        bias=_estimate(_ratio(sums["error"], sums["true"])),
        r2=_estimate(1 - _ratio(n * sums["error²"], spread)),
        exact=_estimate(sums["exact"] / n),
        within_5_percent=_estimate(sums["within_5"] / n),
        within_10_percent=_estimate(sums["within_10"] / n),
    )


def _count_columns(
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
        "relative": _ratio(size, true, undefined=0.0),
        "exact": error == 0,
        "within_5": 20 * size <= true,
        "within_10": 10 * size <= true,
    }
    return {name: np.asarray(term, np.float64)[:, None] for name, term in terms.items()}


def _match_image(
    predicted: NDArray[np.integer], truth: NDArray[np.integer]
) -> list[int]:
    """Match one image: [predicted, true, splits, merges, TP at each threshold]."""
    p_flat, t_flat = _flat_labels(predicted), _flat_labels(truth)
    p_area, t_area = np.bincount(p_flat), np.bincount(t_flat)
    p, t, overlap = _overlaps(p_flat, t_flat, len(p_area), len(t_area))
    iou = overlap / (p_area[p] + t_area[t] - overlap)
    splits = np.bincount(t[2 * overlap > p_area[p]]) >= 2
    merges = np.bincount(p[2 * overlap > t_area[t]]) >= 2
    # Where two pairs share a nucleus at IoU 0.5, the three are alone together (the
    # halves fill the whole), so dropping repeats on either side leaves one pair.
    p, t, iou = (values[iou >= 0.5] for values in (p, t, iou))
    first = np.unique(t, return_index=True)[1]
    p, iou = p[first], iou[first]
    iou = iou[np.unique(p, return_index=True)[1]]
    hits = (np.count_nonzero(iou >= threshold) for threshold in IOU_THRESHOLDS)
    n_nuclei = (np.count_nonzero(area[1:]) for area in (p_area, t_area))
    return [*map(int, n_nuclei), int(splits.sum()), int(merges.sum()), *map(int, hits)]


def _overlaps(
    predicted: IntArray, truth: IntArray, n_predicted: int, n_true: int
) -> tuple[IntArray, IntArray, IntArray]:
    """List the overlapping pairs: labels of both, and the pixels they share."""
    both = (predicted > 0) & (truth > 0)
    codes = truth[both] * n_predicted + predicted[both]
    # One bin a pair is fastest while the bins are not many more than the pixels.
    if n_true * n_predicted <= 4 * predicted.size:
        px = np.bincount(codes)
        pairs = np.flatnonzero(px)
        px = px[pairs]
    else:
        pairs, px = np.unique(codes, return_counts=True)
    return pairs % n_predicted, pairs // n_predicted, px


def _flat_labels(image: NDArray[np.integer]) -> IntArray:
    """Flatten a label image to int64, with labels small enough to index by."""
    if image.dtype.kind not in "iu":
        raise ValueError(f"labels must be integers, found {image.dtype}")
    flat = image.ravel()
    if flat.size and flat.min() < 0:
        raise ValueError(f"labels must be 0 or more, found {flat.min()}")
    if flat.size and flat.max() > flat.size:
        # 0 goes in front so that the background stays 0 where no pixel shows it.
        with_zero = np.concatenate([np.zeros(1, flat.dtype), flat])
        return np.unique(with_zero, return_inverse=True)[1][1:].astype(np.int64)
    return flat.astype(np.int64)


def _stack(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """View one label image as a stack of one; leave a stack as it is."""
    if labels.ndim not in (2, 3):
        raise ValueError(f"labels must be (H, W) or (n, H, W), found {labels.shape}")
    return labels[None] if labels.ndim == 2 else labels


def _ratio(
    numerator: FloatArray | IntArray,
    denominator: FloatArray | IntArray,
    *,
    undefined: float = np.nan,
) -> FloatArray:
    """Divide elementwise; x / 0 gives `undefined`."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    quotient = np.full(shape, undefined, np.float64)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def _resampled_sums(
    columns: dict[str, FloatArray], rng: np.random.Generator | None, n_resamples: int
) -> dict[str, FloatArray]:
    """Sum columns over the images (row 0) and over resamples of them (further rows).

    Parameters
    ----------
    columns : dict of (n, k) float64 ndarray
        Terms of each image, by name.

    Returns
    -------
    dict of (1 + n_resamples, k) float64 ndarray
        One row only without `rng`, or with one image, of which there is no resample.
    """
    terms = np.concatenate(list(columns.values()), axis=1)
    n = len(terms)
    if n == 0:
        raise ValueError("no image to score")
    sums = [terms.sum(axis=0, keepdims=True)]
    if rng is not None and n > 1:
        at_once = max(1, _DRAWS_AT_ONCE // n)
        for start in range(0, n_resamples, at_once):
            rows = min(at_once, n_resamples - start)
            drawn = rng.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
            times = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
            sums.append(times.astype(np.float64) @ terms)
    ends = np.cumsum([column.shape[1] for column in columns.values()])[:-1]
    split = np.split(np.concatenate(sums), ends, axis=1)
    return dict(zip(columns, split, strict=True))


def _estimate(samples: FloatArray) -> Estimate:
    """Take row 0 as the figure and the rest as its bootstrap samples.

    The interval is the percentile interval (Efron and Tibshirani, An Introduction to
    the Bootstrap, 1993, chapter 13); resamples in which it is undefined are left out.
    """
    value, resampled = float(samples[0]), samples[1:][np.isfinite(samples[1:])]
    if not np.isfinite(value) or resampled.size == 0:
        return Estimate(value, np.nan, np.nan)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def _estimates(samples: FloatArray) -> tuple[Estimate, ...]:
    """Make one estimate of each column."""
    return tuple(_estimate(column) for column in samples.T)
