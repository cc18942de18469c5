"""What the network is to learn, against definitions spelt out pixel by pixel."""

import numpy as np
import pytest
from scipy import ndimage

from nucleiseg.dataset.targets import (
    BOUNDARY,
    INTERIOR,
    find_touching,
    median_diameter,
    number_labels,
    targets,
)

HEADS = ("boundary", "distance", "combined")


def draw_disks(shape, *disks):
    rows, columns = np.indices(shape)
    labels = np.zeros(shape, np.uint16)
    for number, (row, column, radius) in enumerate(disks, 1):
        labels[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = number
    return labels


TOUCHING = draw_disks((48, 64), (24, 18, 12), (24, 42, 12))
APART = draw_disks((48, 64), (24, 14, 10), (24, 50, 10))


def test_a_mask_is_ones_and_zeros():
    labels = np.array([[[0, 7], [2, 65535]]])
    np.testing.assert_array_equal(targets(labels)[..., 0], [[[0, 1], [1, 1]]])
    assert targets(labels).dtype == np.float32


@pytest.mark.parametrize("head", HEADS)
def test_each_crop_of_a_stack_is_as_by_itself(head):
    stack = np.stack([TOUCHING, APART])
    made = targets(stack, head)
    assert made.shape == (2, 48, 64, 3)
    assert made.dtype == np.float32
    for crop, expected in zip(stack, made, strict=True):
        np.testing.assert_array_equal(targets(crop, head), expected)


def test_a_boundary_is_only_where_nuclei_touch():
    classes = targets(TOUCHING, "combined")[..., 0]
    assert (classes == BOUNDARY).any()
    columns = np.nonzero(classes == BOUNDARY)[1]
    # The disks meet at column 30.
    assert 26 <= columns.min() <= columns.max() <= 34
    apart = targets(APART, "combined")[..., 0]
    np.testing.assert_array_equal(apart, np.where(APART > 0, INTERIOR, 0))


def test_boundaries_are_as_wide_as_the_nuclei_are_large():
    small = draw_disks((48, 64), (24, 28, 4), (24, 36, 4))
    large = draw_disks((96, 128), (48, 32, 32), (48, 96, 32))

    def width(labels):
        areas = np.bincount(labels.ravel())
        middle = find_touching(labels, areas)[labels.shape[0] // 2]
        return np.count_nonzero(middle)

    assert 2 <= width(small) < width(large) <= 2 * 4


def test_touching_is_what_a_search_through_the_neighbourhood_finds():
    labels = np.random.default_rng(0).integers(0, 4, (24, 24)).astype(np.uint16)
    labels[ndimage.uniform_filter((labels > 0).astype(float), 3) < 0.8] = 0
    # Areas of 0 to 7 px only: width 1, a pixel and its four neighbours.
    found = find_touching(labels, np.array([0, 7, 7, 7]))
    padded = np.pad(labels, 1)
    for row, column in np.ndindex(labels.shape):
        cross = padded[
            [row, row + 2, row + 1, row + 1, row + 1],
            [column + 1, column + 1, column, column + 2, column + 1],
        ]
        assert found[row, column] == (len(set(cross[cross > 0].tolist())) > 1)
    assert found.any()


def test_distance_is_the_euclidean_one_over_its_largest():
    distance = targets(APART, "distance")[..., 1]
    for number in (1, 2):
        inside = APART == number
        exact = ndimage.distance_transform_edt(inside) - 0.5
        np.testing.assert_allclose(
            distance[inside], (exact / exact.max())[inside], atol=0.06
        )
    assert distance[APART == 0].max() == 0
    # Deepest in the middle, shallow where the other nucleus begins.
    touching = targets(TOUCHING, "distance")[24, :, 1]
    assert touching[18] == 1
    assert touching[29:31].max() < 0.2


def test_gaps_and_contacts_weigh_more():
    near = targets(TOUCHING, "combined")[..., 2]
    assert near[24, 30] == 1
    assert near[24, 18] == 0
    assert targets(APART, "combined")[..., 2].max() == 0
    gap = draw_disks((48, 64), (24, 18, 10), (24, 42, 10))
    assert targets(gap, "combined")[24, 30, 2] == 1


def test_nothing_to_see_is_all_background():
    assert not targets(np.zeros((16, 16), np.uint16), "combined").any()


@pytest.mark.parametrize("shift", [0, 300, 100_000])
def test_labels_are_numbered_from_1_whatever_they_were(shift):
    labels = np.array([[0, 5, 5], [9, 0, 2]])
    moved = np.where(labels > 0, labels + shift, 0)
    np.testing.assert_array_equal(number_labels(moved), [[0, 2, 2], [3, 0, 1]])
    full = np.array([[5, 9]]) + shift
    np.testing.assert_array_equal(number_labels(full), [[1, 2]])


def test_median_diameter_of_labels_and_of_masks():
    labels = draw_disks((64, 128), (20, 20, 6), (20, 60, 10), (40, 100, 14))
    assert median_diameter(labels, is_mask=False) == pytest.approx(20, abs=0.3)
    assert median_diameter(labels > 0, is_mask=True) == pytest.approx(20, abs=0.3)
    nothing = np.zeros((8, 8), np.uint8)
    assert np.isnan(median_diameter(nothing, is_mask=True))
