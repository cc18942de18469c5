"""Metrics against a brute-force matcher and figures worked out by hand."""

import doctest
import math

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from nucleiseg import metrics
from nucleiseg.metrics import (
    AREA_EDGES_PX,
    IOU_THRESHOLDS,
    average_precision,
    concatenate_matches,
    count_instances,
    count_scores,
    instance_scores,
    judge_nuclei,
    match_instances,
    match_label_images,
    paired_bootstrap,
    remove_small_instances,
    score_label_images,
)


def brute_force(predicted, truth):
    """[predicted, true, splits, merges, TP…] from masks of pixels and an assignment."""
    p_masks = [predicted == label for label in set(predicted.ravel().tolist()) - {0}]
    t_masks = [truth == label for label in set(truth.ravel().tolist()) - {0}]
    shape = (len(t_masks), len(p_masks))
    shared, union = np.zeros(shape, int), np.ones(shape, int)
    for i, t in enumerate(t_masks):
        for j, p in enumerate(p_masks):
            shared[i, j], union[i, j] = (t & p).sum(), (t | p).sum()
    hits = []
    for percent in range(50, 100, 5):
        is_pair = 100 * shared >= percent * union  # whole numbers: no rounding
        rows, columns = linear_sum_assignment(-is_pair.astype(int))
        hits.append(int(is_pair[rows, columns].sum()))
    p_area = np.array([m.sum() for m in p_masks])
    t_area = np.array([m.sum() for m in t_masks])
    splits = sum(
        sum(2 * shared[i, j] > p_area[j] for j in range(shape[1])) >= 2
        for i in range(shape[0])
    )
    merges = sum(
        sum(2 * shared[i, j] > t_area[i] for i in range(shape[0])) >= 2
        for j in range(shape[1])
    )
    return [shape[1], shape[0], int(splits), int(merges), *hits]


def brute_force_fates(predicted, truth):
    """Labels that are found, split, merged; right, piece of a split, merge.

    Where two halves tie for one match (IoU exactly 0.5) both or neither may be right:
    such pairs are given apart.
    """
    p_masks = {
        label: predicted == label for label in np.unique(predicted[predicted > 0])
    }
    t_masks = {label: truth == label for label in np.unique(truth[truth > 0])}
    pairs, ties, pieces, parts = set(), set(), {}, {}
    for t, t_mask in t_masks.items():
        for p, p_mask in p_masks.items():
            shared, union = (t_mask & p_mask).sum(), (t_mask | p_mask).sum()
            if 2 * shared >= union:
                pairs.add((p, t))
            if 2 * shared == union:
                ties |= {("p", p), ("t", t)}
            if 2 * shared > p_mask.sum():
                pieces.setdefault(t, []).append(p)
            if 2 * shared > t_mask.sum():
                parts.setdefault(p, []).append(t)
    splits = {t: found for t, found in pieces.items() if len(found) > 1}
    merges = {p: found for p, found in parts.items() if len(found) > 1}
    return ties, {
        "is_found": {t for _, t in pairs},
        "is_split": {*splits},
        "is_merged": {t for found in merges.values() for t in found},
        "is_right": {p for p, _ in pairs},
        "is_piece": {p for found in splits.values() for p in found},
        "is_merge": {*merges},
    }


def as_row(matches, i=0):
    return [
        int(matches.n_predicted[i]),
        int(matches.n_true[i]),
        int(matches.splits[i]),
        int(matches.merges[i]),
        *map(int, matches.true_positives[i]),
    ]


def draw_pair(rng):
    """Blocky labels, and the same after merging, cutting, shifting or repainting."""
    height, width = rng.integers(1, 9, 2)
    n_labels = rng.integers(0, 6)
    coarse = rng.integers(0, n_labels + 1, ((height + 1) // 2, (width + 1) // 2))
    truth = coarse.repeat(2, 0).repeat(2, 1)[:height, :width]
    predicted = truth.copy()
    if rng.random() < 0.4:
        predicted[:, : width // 2][predicted[:, : width // 2] > 0] += n_labels
    if rng.random() < 0.4:
        predicted[predicted == 2] = 1
    if rng.random() < 0.4:
        predicted = np.roll(predicted, 1, axis=int(rng.integers(0, 2)))
    noise = rng.random(truth.shape) < rng.choice([0, 0.2, 1])
    predicted[noise] = rng.integers(0, n_labels + 1, truth.shape)[noise]
    return predicted, truth


def test_matches_agree_with_brute_force():
    rng = np.random.default_rng(1)
    seen = np.zeros(14, int)
    for _ in range(600):
        predicted, truth = draw_pair(rng)
        expected = brute_force(predicted, truth)
        assert as_row(match_instances(predicted, truth)) == expected
        # Names of labels mean nothing, nor does the dtype or a label's size.
        names = rng.permutation(2**40 + np.arange(13) * 977)
        names[0] = 0
        renamed = names[predicted].astype(rng.choice([np.int64, np.uint64]))
        assert as_row(match_instances(renamed, truth.astype(np.uint8))) == expected
        seen += np.array(expected) > 0
    assert seen.min() > 20  # splits, merges and hits at .95 did occur


def test_fates_and_errors_by_area_agree_with_brute_force():
    """With nuclei from below 32 px to above 128 px, made of blocks of 5 × 5."""
    rng = np.random.default_rng(4)
    seen = dict.fromkeys(("is_found", "is_split", "is_merged", "missed", "false"), 0)
    for _ in range(300):
        predicted, truth = (
            np.kron(image, np.ones((5, 5), int)) for image in draw_pair(rng)
        )
        truth = truth * 1000  # beyond the number of pixels
        ties, expected = brute_force_fates(predicted, truth)
        fates = judge_nuclei(predicted, truth)
        for name, labels in expected.items():
            of_true = name in ("is_found", "is_split", "is_merged")
            known = fates.true_labels if of_true else fates.predicted_labels
            found = set(known[getattr(fates, name)].tolist())
            tied = {label for side, label in ties if side == ("t" if of_true else "p")}
            assert found - tied == labels - tied
            assert found <= labels
        matches = match_instances(predicted, truth)
        assert (~fates.is_found).sum() == matches.missed_by_area.sum()
        assert (~fates.is_right).sum() == matches.false_by_area.sum()
        for column, image, labels in (
            ("true_by_area", truth, fates.true_labels),
            ("missed_by_area", truth, fates.true_labels[~fates.is_found]),
            ("predicted_by_area", predicted, fates.predicted_labels),
            ("false_by_area", predicted, fates.predicted_labels[~fates.is_right]),
        ):
            areas = [int((image == label).sum()) for label in labels]
            classes = [sum(a >= edge for edge in AREA_EDGES_PX) for a in areas]
            expected_row = [classes.count(k) for k in range(9)]
            assert getattr(matches, column)[0].tolist() == expected_row
        for name in ("is_found", "is_split", "is_merged"):
            seen[name] += getattr(fates, name).sum()
        seen["missed"] += matches.missed_by_area[0, :3] > 0
        seen["false"] += matches.false_by_area[0, :3] > 0
    assert all(np.min(number) > 2 for number in seen.values()), seen


def test_a_speck_inside_is_a_split_of_a_nucleus_that_is_found():
    truth = np.zeros((10, 10), int)
    truth[1:9, 1:9] = 3
    predicted = truth * 2
    predicted[4, 4] = 1
    fates = judge_nuclei(predicted, truth)
    assert fates.is_found.tolist() == fates.is_split.tolist() == [True]
    assert fates.predicted_labels.tolist() == [1, 6]
    assert fates.is_right.tolist() == [False, True]
    assert fates.is_piece.tolist() == [True, True]


def test_fates_of_empty_images():
    empty, full = np.zeros((3, 4), np.uint16), np.ones((3, 4), np.uint16)
    nothing, missed = judge_nuclei(empty, empty), judge_nuclei(empty, full)
    assert nothing.true_labels.size == nothing.predicted_labels.size == 0
    assert missed.is_found.tolist() == [False]
    assert judge_nuclei(full, empty).is_right.tolist() == [False]


def test_areas_of_scores_add_up():
    rng = np.random.default_rng(9)
    truth = rng.integers(0, 30, (4, 60, 60)) * (rng.random((4, 60, 60)) < 0.7)
    predicted = np.roll(truth, 1, axis=1)
    scores = instance_scores(match_instances(predicted, truth))
    assert [area.least_px for area in scores.areas] == [1, *AREA_EDGES_PX]
    largest = [area.largest_px for area in scores.areas]
    assert largest == [*(edge - 1 for edge in AREA_EDGES_PX), None]
    assert sum(area.n_true for area in scores.areas) == scores.n_true
    assert sum(area.n_predicted for area in scores.areas) == scores.n_predicted
    missed = sum(area.missed for area in scores.areas)
    assert scores.recall_pooled[0].value == 1 - missed / scores.n_true
    false = sum(area.false_positives for area in scores.areas)
    assert scores.precision_pooled[0].value == 1 - false / scores.n_predicted


def test_many_labels_take_the_sparse_path():
    """More possible pairs than four a pixel, as in large images."""
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 90, (12, 12))
    predicted = np.where(rng.random(truth.shape) < 0.3, 0, truth)
    assert truth.max() * predicted.max() > 4 * truth.size
    assert as_row(match_instances(predicted, truth)) == brute_force(predicted, truth)


def test_tie_at_one_half_is_one_match():
    whole, halves = np.array([[1, 1, 1, 1]]), np.array([[3, 3, 8, 8]])
    for predicted, truth in ((whole, halves), (halves, whole)):
        matches = match_instances(predicted, truth)
        assert matches.true_positives[0].tolist() == [1] + [0] * 9


def test_iou_equal_to_a_threshold_reaches_it():
    for k, threshold in enumerate(IOU_THRESHOLDS):
        truth = np.ones((1, 20), int)
        predicted = (np.arange(20) < round(20 * threshold)).astype(int)[None]
        expected = [1] * (k + 1) + [0] * (9 - k)
        found = match_instances(predicted, truth)
        assert found.true_positives[0].tolist() == expected


def test_half_inside_does_not_belong():
    truth = np.array([[1, 1, 1, 1, 2, 2, 2, 2]])
    predicted = np.array([[5, 5, 6, 6, 6, 6, 0, 0]])  # 6 lies half in each
    assert match_instances(predicted, truth).splits[0] == 0
    predicted = np.array([[5, 5, 6, 6, 6, 0, 0, 0]])  # now 2 of 3 px in nucleus 1
    assert match_instances(predicted, truth).splits[0] == 1


def test_splits_and_merges_are_not_confused():
    one = np.array([[1, 1, 1, 1, 1, 1]])
    three = np.array([[1, 1, 2, 2, 3, 3]])
    cut, joined = match_instances(three, one), match_instances(one, three)
    assert (cut.splits[0], cut.merges[0]) == (1, 0)
    assert (joined.splits[0], joined.merges[0]) == (0, 1)


def test_empty_images():
    empty, full = np.zeros((3, 4), np.uint16), np.ones((3, 4), np.uint16)
    predicted = np.stack([empty, full, empty, full])
    truth = np.stack([empty, empty, full, full])
    scores = instance_scores(match_instances(predicted, truth))
    # TP, FP, FN = 1, 1, 1; per image 1, 0, 0, 1
    assert scores.ap_pooled[0].value == pytest.approx(1 / 3)
    assert scores.f1_pooled[0].value == pytest.approx(1 / 2)
    assert scores.ap_per_image[0].value == scores.f1_per_image[0].value == 0.5
    assert (scores.n_images, scores.n_empty) == (4, 1)


def test_only_empty_images_are_undefined_pooled_and_perfect_per_image():
    nothing = np.zeros((2, 3, 4), np.uint8)
    scores = instance_scores(match_instances(nothing, nothing))
    assert math.isnan(scores.mean_ap_pooled.value)
    assert math.isnan(scores.f1_pooled[0].value)
    assert scores.mean_ap_per_image.value == 1


def test_instance_scores_by_hand():
    truth = np.zeros((2, 1, 30), int)
    truth[0, 0, :10], truth[0, 0, 20:] = 1, 2
    truth[1, 0, :10] = 4
    predicted = truth.copy()
    predicted[0, 0, 6:10] = 0  # IoU 0.6 with nucleus 1; nucleus 2 is exact
    predicted[1, 0, 15:20] = 9  # one too many
    scores = instance_scores(match_instances(predicted, truth))
    assert scores.thresholds == IOU_THRESHOLDS
    low, high = 3 / 4, 2 / 5  # up to .60: TP 3, FP 1; above: TP 2, FP 2, FN 1
    assert [e.value for e in scores.ap_pooled] == pytest.approx([low] * 3 + [high] * 7)
    assert scores.f1_pooled[0].value == pytest.approx(6 / 7)
    assert scores.f1_pooled[9].value == pytest.approx(4 / 7)
    per_image = [(1 + 1 / 2) / 2] * 3 + [(1 / 3 + 1 / 2) / 2] * 7
    assert [e.value for e in scores.ap_per_image] == pytest.approx(per_image)
    assert scores.f1_per_image[9].value == pytest.approx((1 / 2 + 2 / 3) / 2)
    precision = [e.value for e in scores.precision_pooled]
    recall = [e.value for e in scores.recall_pooled]
    assert precision == pytest.approx([3 / 4] * 3 + [2 / 4] * 7)
    assert recall == pytest.approx([1] * 3 + [2 / 3] * 7)
    assert average_precision(match_instances(predicted, truth))[:, 9] == pytest.approx(
        [1 / 3, 1 / 2]
    )
    assert scores.mean_ap_pooled.value == pytest.approx((3 * low + 7 * high) / 10)
    assert scores.mean_ap_pooled_50_90.value == pytest.approx((3 * low + 6 * high) / 9)
    assert scores.mean_ap_per_image.value == pytest.approx(np.mean(per_image))
    assert scores.mean_ap_per_image_50_90.value == pytest.approx(np.mean(per_image[:9]))


def test_pieces_join_to_the_whole():
    rng = np.random.default_rng(3)
    predicted, truth = rng.integers(0, 4, (2, 7, 5, 6))
    pieces = [
        match_instances(predicted[i : i + 3], truth[i : i + 3]) for i in (0, 3, 6)
    ]
    whole = match_instances(predicted, truth)
    joined = concatenate_matches(pieces)
    assert [as_row(joined, i) for i in range(7)] == [as_row(whole, i) for i in range(7)]
    assert instance_scores(joined) == instance_scores(whole)


def test_images_of_several_sizes_are_scored_in_one_call():
    rng = np.random.default_rng(3)
    shapes = [(5, 6), (9, 4), (1, 1)]
    pairs = [rng.integers(0, 4, (2, *shape)) for shape in shapes]
    matches = concatenate_matches([match_instances(*pair) for pair in pairs])
    scores = score_label_images(
        (p for p, _ in pairs), (t for _, t in pairs), rng=np.random.default_rng(0)
    )
    again = np.random.default_rng(0)
    assert scores.counts == count_scores(matches.n_predicted, matches.n_true, rng=again)
    assert scores.instances == instance_scores(matches, rng=again)
    assert scores.matches.n_true.tolist() == matches.n_true.tolist()


def test_select_gives_the_images_asked_for():
    rng = np.random.default_rng(3)
    predicted, truth = rng.integers(0, 4, (2, 7, 5, 6))
    matches = match_instances(predicted, truth)
    some = match_instances(predicted[[5, 2]], truth[[5, 2]])
    for chosen in (
        matches.select(np.array([5, 2])),
        matches.select(np.arange(7) % 3 == 2).select(np.array([1, 0])),
    ):
        assert len(chosen) == 2
        assert [as_row(chosen, i) for i in range(2)] == [
            as_row(some, i) for i in range(2)
        ]
        assert (chosen.true_by_area == some.true_by_area).all()


def test_count_and_remove_small():
    labels = np.array([[[9, 9, 0, 200], [9, 0, 0, 200]], [[0, 0, 0, 0], [0, 0, 0, 5]]])
    assert count_instances(labels).tolist() == [2, 1]
    assert count_instances(labels, 3).tolist() == [1, 0]
    assert count_instances(np.full((2, 2), 7)).tolist() == [1]  # no background at all
    before = labels.copy()
    kept = remove_small_instances(labels, 3)
    assert kept.tolist() == [[[9, 9, 0, 0], [9, 0, 0, 0]], [[0] * 4, [0] * 4]]
    assert (labels == before).all()
    assert remove_small_instances(labels, 2).tolist()[0] == before.tolist()[0]


def test_count_scores_by_hand():
    truth = np.array([10, 20, 100, 0, 0])
    predicted = np.array([10, 18, 105, 0, 3], np.uint8)
    scores = count_scores(predicted, truth)
    assert (scores.n_images, scores.n_without_nuclei) == (5, 2)
    assert (scores.true_total, scores.predicted_total) == (130, 136)
    assert scores.mae.value == pytest.approx((0 + 2 + 5 + 0 + 3) / 5)
    assert scores.mape.value == pytest.approx((0 + 0.1 + 0.05) / 3)
    assert scores.count_error.value == pytest.approx(10 / 130)
    assert scores.bias.value == pytest.approx(6 / 130)
    assert scores.r2.value == pytest.approx(1 - 38 / np.sum((truth - 26.0) ** 2))
    assert scores.exact.value == pytest.approx(2 / 5)
    assert scores.within_5_percent.value == pytest.approx(3 / 5)
    assert scores.within_10_percent.value == pytest.approx(4 / 5)


def test_shares_within_end_where_they_say():
    truth = np.array([20, 19, 10, 9])
    scores = count_scores(truth + 1, truth)  # off by 5, 5.3, 10 and 11.1 %
    assert scores.within_5_percent.value == 1 / 4
    assert scores.within_10_percent.value == 3 / 4


def test_bias_has_its_sign_and_errors_cancel_only_there():
    scores = count_scores(np.array([8, 12, 7]), np.array([10, 10, 10]))
    assert scores.bias.value == pytest.approx(-0.1)
    assert scores.count_error.value == pytest.approx(7 / 30)


def test_undefined_figures_are_nan():
    rng = np.random.default_rng(0)
    scores = count_scores(np.array([0, 1]), np.array([0, 0]), rng=rng)
    for undefined in (scores.mape, scores.count_error, scores.bias, scores.r2):
        assert all(math.isnan(x) for x in (undefined.value, undefined.low))
    assert scores.mae.value == 0.5
    alike = count_scores(np.array([3, 4, 3]), np.array([3, 3, 3]), rng=rng)
    assert math.isnan(alike.r2.value)
    assert alike.mape.value == pytest.approx(1 / 9)


def test_interval_is_that_of_a_plain_bootstrap():
    rng = np.random.default_rng(5)
    truth = rng.poisson(20, 60)
    predicted = np.maximum(truth + rng.integers(-4, 4, 60), 0)
    found = count_scores(predicted, truth, rng=np.random.default_rng(6))
    plain = []
    for _ in range(1000):
        i = rng.integers(0, 60, 60)
        t, e = truth[i], predicted[i] - truth[i]
        r2 = 1 - (e**2).sum() / ((t - t.mean()) ** 2).sum()
        plain.append([abs(e).mean(), e.sum() / t.sum(), (e == 0).mean(), r2])
    low, high = np.percentile(plain, [2.5, 97.5], axis=0)
    for k, figure in enumerate((found.mae, found.bias, found.exact, found.r2)):
        width = high[k] - low[k]
        assert figure.low < figure.value < figure.high
        assert abs(figure.low - low[k]) < 0.15 * width
        assert abs(figure.high - high[k]) < 0.15 * width


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(7)
    truth = np.full(100, 20)
    n_covered = 0
    for _ in range(200):
        errors = rng.integers(-3, 4, 100)  # mean |error| of the population: 12 / 7
        mae = count_scores(truth + errors, truth, rng=rng, n_resamples=300).mae
        n_covered += mae.low <= 12 / 7 <= mae.high
    assert 175 <= n_covered <= 199  # 190 expected, ± 5 standard deviations below


def test_intervals_depend_on_the_seed_alone():
    rng = np.random.default_rng(8)
    truth = rng.integers(0, 3, (20, 6, 6))
    predicted = np.where(rng.random(truth.shape) < 0.2, 0, truth)
    matches = match_instances(predicted, truth)
    one, same, other = (
        instance_scores(matches, rng=np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert one == same
    assert one.mean_ap_pooled.low != other.mean_ap_pooled.low
    assert one.mean_ap_pooled.low < one.mean_ap_pooled.value < one.mean_ap_pooled.high


def draw_methods(n=40):
    """Two methods on the same images: the second finds one nucleus in ten more."""
    rng = np.random.default_rng(11)
    truth = np.arange(1, 26).reshape(5, 5) * np.ones((n, 1, 1), int)
    truth *= rng.random((n, 1, 1)) < rng.random((n, 5, 5))  # some have few
    draws = rng.random(truth.shape)
    first, second = (np.where(draws < share, truth, 0) for share in (0.6, 0.7))
    return match_instances(first, truth), match_instances(second, truth)


def test_paired_difference_is_that_of_a_plain_paired_bootstrap():
    first, second = draw_methods()
    found = paired_bootstrap(first, second, rng=np.random.default_rng(6))
    rng = np.random.default_rng(5)

    def figures(matches, i):
        hits, true = matches.true_positives[i, 0].sum(), matches.n_true[i].sum()
        predicted = matches.n_predicted[i].sum()
        error = np.abs(matches.n_predicted - matches.n_true)[i].sum()
        return hits / (predicted + true - hits), error / true

    everything = np.arange(len(first))
    plain = []
    for _ in range(1000):
        i = rng.integers(0, len(first), len(first))
        plain.append(np.subtract(figures(second, i), figures(first, i)))
    low, high = np.percentile(plain, [2.5, 97.5], axis=0)
    for k, name in enumerate(("ap_pooled_50", "count_error")):
        figure = found[name]
        assert figure.first == figures(first, everything)[k]
        assert figure.second == figures(second, everything)[k]
        assert figure.difference.value == pytest.approx(figure.second - figure.first)
        width = high[k] - low[k]
        assert abs(figure.difference.low - low[k]) < 0.15 * width
        assert abs(figure.difference.high - high[k]) < 0.15 * width


def test_pairing_sees_what_separate_intervals_do_not():
    first, second = draw_methods(15)
    alone = [
        instance_scores(matches, rng=np.random.default_rng(0)).ap_pooled[0]
        for matches in (first, second)
    ]
    assert alone[1].low < alone[0].high  # they overlap: the test would be idle else
    paired = paired_bootstrap(first, second, rng=np.random.default_rng(0))
    assert paired["ap_pooled_50"].difference.low > 0
    assert paired["count_error"].difference.high < 0


def test_paired_figures_are_those_of_the_scores():
    first, second = draw_methods()
    found = paired_bootstrap(first, second, rng=np.random.default_rng(0))
    instances = instance_scores(second)
    counts = count_scores(second.n_predicted, second.n_true)
    for name, figure in found.items():
        if name.endswith("_50"):
            expected = getattr(instances, name.removesuffix("_50"))[0]
        else:
            expected = getattr(instances, name, None) or getattr(counts, name)
        assert figure.second == expected.value, name
    assert {"mean_ap_pooled_50_90", "f1_pooled_50", "bias", "merge_share"} < {*found}


def test_a_method_differs_from_itself_by_nothing():
    first, _ = draw_methods()
    same = paired_bootstrap(first, first, rng=np.random.default_rng(0))
    for name, figure in same.items():
        assert figure.difference == metrics.Estimate(0.0, 0.0, 0.0), name


def test_paired_comparison_needs_the_same_truth():
    first, second = draw_methods()
    with pytest.raises(ValueError, match="true nuclei of the 40 and 39"):
        paired_bootstrap(
            first, second.select(np.arange(39)), rng=np.random.default_rng(0)
        )
    with pytest.raises(ValueError, match="same truth"):
        paired_bootstrap(
            first, second.select(np.arange(40)[::-1]), rng=np.random.default_rng(0)
        )


def test_resampling_in_several_rounds(monkeypatch):
    truth = np.arange(1, 30)
    expected = count_scores(
        truth + 1, truth, rng=np.random.default_rng(0), n_resamples=50
    )
    monkeypatch.setattr(metrics.bootstrap, "_DRAWS_AT_ONCE", 29 * 7)
    found = count_scores(truth + 1, truth, rng=np.random.default_rng(0), n_resamples=50)
    assert found == expected


def test_no_interval_without_rng_or_with_one_image():
    many = count_scores(np.array([1, 2]), np.array([1, 3])).mae
    single = count_scores(
        np.array([1]), np.array([3]), rng=np.random.default_rng(0)
    ).mae
    assert many.value == 0.5
    assert single.value == 2
    assert all(math.isnan(x) for x in (many.low, many.high, single.low, single.high))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: match_instances(np.zeros((2, 2), int), np.zeros((2, 3), int)),
            "differ",
        ),
        (lambda: judge_nuclei(np.zeros((1, 2), int), np.zeros((2, 1), int)), "shapes"),
        (lambda: match_label_images([np.zeros((2, 2), int)], []), "shorter"),
        (
            lambda: match_label_images(
                [np.zeros((1, 2), int)], [np.zeros((2, 1), int)]
            ),
            r"label images 0 .*\(1, 2\) and \(2, 1\)",
        ),
        (lambda: score_label_images([], []), "no image"),
        (lambda: count_instances(np.zeros((2, 2))), "integers"),
        (lambda: count_instances(np.array([[0, -1]])), "0 or more"),
        (lambda: count_instances(np.zeros(4, int)), "H, W"),
        (lambda: count_scores(np.array([1]), np.array([1, 2])), "one length"),
        (lambda: count_scores(np.zeros(0, int), np.zeros(0, int)), "no image"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_examples_in_docstrings():
    names = ("comparing", "counts", "fates", "labels", "matching", "scoring", "sizes")
    modules = [getattr(metrics, name) for name in names]
    results = [doctest.testmod(module) for module in modules]
    assert all(result.attempted for result in results)
    assert not any(result.failed for result in results)
