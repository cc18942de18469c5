"""Thresholds chosen on cases whose best ones are known."""

import numpy as np
import pytest

from nucleiseg.evaluation import Choice, Found, Table, measure_found
from nucleiseg.evaluation.thresholds import AREAS_PX, IOU_THRESHOLDS

PAIRS = [(0.3, 0.5), (0.4, 0.5), (0.5, 0.5)]


def find(ious, n_true, areas=None):
    """What was found in an image: nuclei of these IoUs, of 1000 px unless told."""
    ious = np.array(ious, dtype=np.float64)
    areas = np.full(len(ious), 1000.0) if areas is None else np.array(areas, float)
    return Found(areas, ious, n_true)


NOTHING = find([], 0)


class TestMeasuring:
    def test_by_hand(self):
        truth = np.zeros((8, 12), np.uint8)
        truth[0:4, 0:4], truth[4:8, 6:12] = 3, 9
        labels = np.zeros((8, 12), np.int32)
        labels[0:4, 0:3], labels[0:2, 8:12] = 1, 4
        found = measure_found(labels, truth)
        assert found.n_true == 2
        np.testing.assert_array_equal(found.areas, [12, 8])
        np.testing.assert_array_equal(found.ious, [12 / 16, 0])

    def test_areas_may_be_those_of_the_maps(self):
        truth = np.zeros((4, 4), np.uint8)
        labels = np.zeros((4, 4), np.int32)
        labels[0, 0], labels[3, 3] = 1, 3
        # The nucleus 2 lies under no pixel of the image.
        found = measure_found(labels, truth, np.array([0.0, 2.5, 7.0, 3.5]))
        np.testing.assert_array_equal(found.areas, [2.5, 3.5])

    def test_nothing_at_all(self):
        empty = np.zeros((4, 4), np.int32)
        found = measure_found(empty, empty)
        assert (len(found.areas), len(found.ious), found.n_true) == (0, 0, 0)


class TestTable:
    def test_figures_by_hand(self):
        # 3 of 4 are right at 0.50, one of them at 0.90; one true nucleus is missed.
        image = [find([0.95, 0.62, 0.5, 0.0], 4)]
        choice = Table(PAIRS[:1], [image]).choose()
        assert choice.ap_50 == 3 / 5
        hits = [3, 2, 2, 1, 1, 1, 1, 1, 1]
        assert choice.mean_ap_50_90 == pytest.approx(
            np.mean([n / (8 - n) for n in hits])
        )
        assert (choice.count_error, choice.bias) == (0, 0)
        assert choice.objective == choice.ap_50 + choice.mean_ap_50_90

    def test_counts_that_are_off_by_hand(self):
        images = [[find([1, 1, 0, 0], 2)], [find([1], 6)]]
        choice = Table(PAIRS[:1], images).choose()
        assert choice.count_error == (2 + 5) / 8
        assert choice.bias == (2 - 5) / 8
        assert choice.ap_50 == choice.mean_ap_50_90 == 3 / (5 + 8 - 3)
        assert choice.objective == pytest.approx(2 * 0.3 - 7 / 8 - 3 / 8)

    def test_an_iou_at_a_threshold_reaches_it(self):
        table = Table(PAIRS[:1], [[find([11 / 20], 1)]])
        expected = np.mean(IOU_THRESHOLDS <= 0.551)
        assert table.choose().mean_ap_50_90 == pytest.approx(expected) == 2 / 9

    def test_the_best_pair_and_area_are_chosen(self):
        specks = find([0.9, 0.9, 0, 0], 2, areas=[70, 90, 11, 8])
        clumps = find([0.9], 2, areas=[400])
        choice = Table(PAIRS, [[clumps, specks, clumps]] * 3).choose()
        assert (choice.threshold, choice.seed_threshold) == PAIRS[1]
        # Of 12, 15 … 60, which all leave the same nuclei, the first.
        assert choice.min_area_px == 12
        assert (choice.ap_50, choice.count_error, choice.bias) == (1, 0, 0)

    def test_a_nucleus_of_the_smallest_area_stays(self):
        choice = Table(PAIRS[:1], [[find([0.9, 0], 1, areas=[12, 10])]]).choose()
        assert choice.min_area_px == 12
        table = Table(PAIRS[:1], [[find([0.9, 0], 1, areas=[11.9, 10])]])
        # Of sizes that part them, there is none: both stay, or both go.
        assert table.choose().min_area_px == 0

    def test_of_equal_ones_the_first(self):
        table = Table(PAIRS, [[find([0.9], 1)] * 3])
        choice = table.choose()
        assert (choice.threshold, choice.min_area_px) == (0.3, 0)

    def test_empty_images_only_count_errors(self):
        without = Table(PAIRS[:1], [[find([1], 1)]]).choose()
        assert Table(PAIRS[:1], [[find([1], 1)], [NOTHING]]).choose() == without
        # A nucleus found in an empty image is one too many; there is no area for it.
        choice = Table(PAIRS[:1], [[find([1], 1)], [find([0], 0)]]).choose()
        assert (choice.ap_50, choice.count_error, choice.bias) == (1 / 2, 1, 1)

    def test_nothing_but_empty_images(self):
        choice = Table(PAIRS, [[NOTHING] * 3] * 2).choose()
        assert (choice.threshold, choice.min_area_px, choice.objective) == (0.3, 0, 0)

    def test_only_the_images_that_are_asked_for(self):
        right, wrong = find([1], 1), find([0], 1)
        table = Table(PAIRS, [[right, wrong, wrong], [wrong, wrong, right]])
        assert len(table) == 2
        assert table.choose(np.array([0])).threshold == 0.3
        assert table.choose(np.array([1])).threshold == 0.5
        assert table.choose(np.array([1])).ap_50 == 1
        assert table.choose().ap_50 == 1 / 3

    def test_curve_has_the_best_area_of_each_pair(self):
        one = find([0.9, 0], 1, areas=[50, 5])
        curve = Table(PAIRS, [[one, find([0], 1), find([0.9], 1)]]).curve()
        assert [row["threshold"] for row in curve] == [0.3, 0.4, 0.5]
        assert [row["min_area_px"] for row in curve] == [6, 0, 0]
        assert [row["ap_50"] for row in curve] == [1, 0, 1]

    def test_a_brute_search_finds_the_same(self):
        rng = np.random.default_rng(0)
        images = [
            [
                find(
                    rng.random(n) * (rng.random(n) < 0.8),
                    int(rng.integers(0, 9)),
                    areas=rng.integers(1, 120, n),
                )
                for n in rng.integers(0, 9, len(PAIRS))
            ]
            for _ in range(7)
        ]
        # An image has as many true nuclei whatever is found in it.
        images = [[Found(f.areas, f.ious, i[0].n_true) for f in i] for i in images]
        best = max(
            (score_plainly(images, pair, area), -pair, -area)
            for pair in range(len(PAIRS))
            for area in AREAS_PX
        )
        choice = Table(PAIRS, images).choose()
        assert choice.objective == pytest.approx(best[0])
        assert (choice.threshold, choice.min_area_px) == (PAIRS[-best[1]][0], -best[2])


def score_plainly(images, pair, min_area_px):
    kept = [
        [iou for iou, area in zip(f.ious, f.areas, strict=True) if area >= min_area_px]
        for f in (image[pair] for image in images)
    ]
    n_true = [image[pair].n_true for image in images]
    found, total = sum(map(len, kept)), sum(n_true)
    aps = []
    for threshold in IOU_THRESHOLDS:
        hits = sum(iou >= threshold for image in kept for iou in image)
        aps.append(hits / (found + total - hits))
    errors = [len(image) - n for image, n in zip(kept, n_true, strict=True)]
    off = sum(map(abs, errors)) / total + abs(sum(errors)) / total
    return aps[0] + np.mean(aps) - off


def test_values_for_a_file_are_rounded():
    choice = Choice(0.3, 0.45, 12, 1 / 3, 2 / 3, 0.5, 0.1, -0.1)
    assert choice.as_dict()["objective"] == 0.33333
    assert choice.as_dict()["seed_threshold"] == 0.45
