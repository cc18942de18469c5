"""From probabilities to nuclei, with the notebook's lines as oracle."""

from dataclasses import astuple

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucleiseg.config import InstancesConfig
from nucleiseg.instances import label_nuclei, summarise

DEFAULT = InstancesConfig()
ABOVE_A_HALF = float(np.nextafter(np.float32(0.5), np.float32(1)))


def label(probability, settings):
    return label_nuclei(probability[..., np.newaxis], settings)


def summarise_labels(image, probability, labels):
    return summarise(image, probability[..., np.newaxis], labels)


def draw_map(text, dark=0.1, bright=0.9):
    """Probabilities from a picture: `#` is nucleus, `.` is background."""
    rows = text.split()
    return np.array(
        [[bright if pixel == "#" else dark for pixel in row] for row in rows],
        dtype=np.float32,
    )


def count_as_the_notebook(probability):
    mask = np.round(probability).astype(np.uint8)
    return cv2.connectedComponents(mask)[0] - 1


THREE = draw_map("""
    ##.....#
    ##.....#
    ....##..
    ....##..
    ....#...
""")


class TestLabelNuclei:
    @settings(deadline=None, max_examples=200)
    @given(
        hnp.arrays(
            np.float32,
            hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
            elements=st.sampled_from([0, 0.25, 0.5, ABOVE_A_HALF, 0.75, 1])
            | st.floats(0, 1, width=32),
        )
    )
    def test_counts_as_the_notebook(self, probability):
        labels = label(probability, DEFAULT)
        assert labels.max() == count_as_the_notebook(probability)
        np.testing.assert_array_equal(labels > 0, np.round(probability) == 1)

    @pytest.mark.parametrize("seed", range(5))
    def test_counts_as_the_notebook_at_size(self, seed):
        # Coarse steps, so that many pixels are exactly a half.
        rng = np.random.default_rng(seed)
        probability = (rng.integers(0, 8 + seed, (200, 170)) / 10).astype(np.float32)
        assert (probability == 0.5).any()
        count = label(probability, DEFAULT).max()
        assert count == count_as_the_notebook(probability) > 10

    def test_a_half_is_background(self):
        assert label(np.full((4, 4), 0.5, np.float32), DEFAULT).max() == 0
        above = np.full((4, 4), ABOVE_A_HALF, np.float32)
        assert label(above, DEFAULT).max() == 1

    def test_labels_are_consecutive_int32(self):
        labels = label(THREE, DEFAULT)
        assert labels.dtype == np.int32
        assert labels.shape == THREE.shape
        assert set(np.unique(labels)) == {0, 1, 2, 3}
        assert len({labels[0, 0], labels[0, 7], labels[2, 4]}) == 3

    def test_diagonal_neighbours_are_one(self):
        labels = label(draw_map("#.. .#. ..#"), DEFAULT)
        assert labels.max() == 1

    def test_threshold(self):
        probability = np.array([[0.3, 0.0, 0.6, 0.0, 0.9]], np.float32)
        counts = [
            label(probability, InstancesConfig(threshold=t)).max()
            for t in (0.2, 0.3, 0.5, 0.7, 0.95)
        ]
        assert counts == [3, 2, 2, 1, 0]

    @pytest.mark.parametrize(
        ("min_area_px", "areas"),
        [
            (0, [2, 4, 5]),
            (1, [2, 4, 5]),
            (2, [2, 4, 5]),
            (3, [4, 5]),
            (5, [5]),
            (6, []),
        ],
    )
    def test_small_ones_are_dropped_and_the_others_renumbered(self, min_area_px, areas):
        labels = label(THREE, InstancesConfig(min_area_px=min_area_px))
        assert sorted(np.unique(labels)) == list(range(len(areas) + 1))
        assert sorted(np.bincount(labels.ravel())[1:]) == areas
        assert labels.dtype == np.int32

    @pytest.mark.parametrize("min_area_px", [0, 5])
    def test_empty_and_full(self, min_area_px):
        config = InstancesConfig(min_area_px=min_area_px)
        assert not label(np.zeros((5, 7), np.float32), config).any()
        assert (label(np.ones((5, 7), np.float32), config) == 1).all()

    def test_background_is_never_counted_for_its_area(self):
        # The background, label 0, is larger than every smallest area.
        labels = label(THREE, InstancesConfig(min_area_px=10))
        assert not labels.any()

    def test_probability_is_unchanged(self):
        before = THREE.copy()
        label(THREE, InstancesConfig(min_area_px=3))
        np.testing.assert_array_equal(THREE, before)


class TestSummarise:
    def test_by_hand(self):
        probability = THREE.copy()
        probability[0, 0] = 0.8
        image = np.zeros(THREE.shape, np.uint8)
        image[0, :3] = 255
        image[1, 0] = 254
        summary = summarise_labels(image, probability, label(probability, DEFAULT))
        assert summary.count == 3
        assert summary.foreground_share == round(11 / 40, 4) == 0.275
        assert summary.mean_area_px == round(11 / 3, 2) == 3.67
        # All three touch: the left and the right one above, the middle one below.
        assert summary.border_count == 3
        assert summary.saturated_share == round(3 / 40, 4) == 0.075
        assert summary.confidence == round((0.8 + 10 * 0.9) / 11, 4) == 0.8909

    @pytest.mark.parametrize(
        ("picture", "n_touching"),
        [
            ("..... .#.#. .....", 0),
            ("#.... ..... ....#", 2),
            ("..#.. ..... .....", 1),
            ("..... #.... .....", 1),
            ("..... ....# .....", 1),
            ("..... ..... ..#..", 1),
            ("##### ##### #####", 1),
            ("#.#.#", 3),
        ],
    )
    def test_border_count(self, picture, n_touching):
        probability = draw_map(picture)
        labels = label(probability, DEFAULT)
        summary = summarise_labels(probability, probability, labels)
        assert summary.border_count == n_touching

    def test_without_nuclei(self):
        empty = np.zeros((4, 5), np.float32)
        summary = summarise_labels(empty, empty, label(empty, DEFAULT))
        assert summary.count == summary.border_count == 0
        assert summary.foreground_share == 0
        assert summary.mean_area_px is None
        assert summary.confidence is None

    @pytest.mark.parametrize(
        ("dtype", "values", "n_saturated"),
        [
            ("uint8", [255, 255, 254, 0], 2),
            ("uint8", [1, 1, 1, 1], 0),
            ("uint16", [65535, 255, 255, 0], 1),
            (">u2", [65535, 255, 255, 0], 1),
            ("int16", [32767, 255, 0, -1], 1),
            ("float32", [1, 1, 0.99, 0], 2),
            ("float32", [0.9, 0.9, 0.5, 0], 0),
            ("float64", [255, 1, 1, 0], 1),
            ("float32", [254.9, 1, 1, 0], 0),
            ("float16", [255, 255, 255, 0], 3),
            ("float32", [65535, 255, 1, 0], 1),
            ("float32", [0, 0, 0, 0], 0),
        ],
    )
    def test_saturated_share(self, dtype, values, n_saturated):
        image = np.array(values, dtype).reshape(2, 2)
        zeros = np.zeros((2, 2), np.float32)
        summary = summarise_labels(image, zeros, zeros.astype(np.int32))
        assert summary.saturated_share == n_saturated / 4

    def test_figures_are_plain_and_rounded(self):
        # NumPy's own scalars would not go into a table; unrounded sums would show
        # the order in which they were made.
        probability = np.full((3, 7), 2 / 3, np.float32)
        probability[0] = 0
        summary = summarise_labels(
            probability, probability, label(probability, DEFAULT)
        )
        *figures, flags = astuple(summary)
        assert flags == "saturated"
        assert [type(value) for value in figures] == [
            int,
            float,
            float,
            int,
            float,
            float,
        ]
        assert summary.foreground_share == summary.confidence == 0.6667
