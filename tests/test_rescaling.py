"""Images enlarged and reduced, and their nuclei brought back to the stored size."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleiseg.config import InstancesConfig
from nucleiseg.instances import (
    count_nuclei,
    label_all_at_size,
    label_at_size,
    label_nuclei,
    restore_labels,
    segment_nuclei,
    summarise,
)
from nucleiseg.preprocess import choose_scale, limit_scale, rescale, scaled_shape

SETTINGS = InstancesConfig()


def draw_disks(shape, diameter_px, step_px, *, margin_px=0):
    """Disks on a grid, as a mask."""
    rows, columns = np.indices(shape)
    mask = np.zeros(shape, dtype=bool)
    for row in np.arange(step_px / 2, shape[0] - margin_px, step_px):
        for column in np.arange(step_px / 2, shape[1] - margin_px, step_px):
            mask |= np.hypot(rows - row, columns - column) <= diameter_px / 2
    return mask


class TestScale:
    @given(st.floats(1, 2000), st.floats(4, 500))
    def test_nuclei_come_within_half_a_step_of_the_wanted_diameter(self, found, wanted):
        scale = choose_scale(found, wanted)
        ratio = found / wanted
        if 0.7 <= ratio <= 1.5:
            assert scale == 1
        elif 1 / 4 <= ratio <= 4:
            assert abs(np.log2(scale * ratio)) <= 1 / 8 + 1e-9
        else:
            assert scale == (4 if ratio < 1 else 1 / 4)

    @given(st.floats(1, 2000), st.floats(4, 500))
    def test_half_the_way_ends_within_half_to_twice(self, found, wanted):
        scale = choose_scale(found, wanted, share=0.5)
        ratio = found / wanted
        if 0.7 <= ratio <= 1.5:
            assert scale == 1
        elif 1 / 4 <= ratio <= 4:
            assert abs(np.log2(scale**2 * ratio)) <= 1 / 4 + 1e-9
        elif 1 / 8 <= ratio <= 8:
            assert abs(np.log2(scale * ratio)) <= 1 + 1 / 8 + 1e-9
        else:
            assert scale == (4 if ratio < 1 else 1 / 4)

    def test_scales_are_few(self):
        scales = {choose_scale(d, 26) for d in np.geomspace(1, 1000, 2000)}
        assert len(scales) <= 17
        assert {0.25, 0.5, 1.0, 2.0, 4.0} <= scales

    def test_large_images_are_enlarged_less(self):
        assert limit_scale(4.0, (100, 200)) == 4.0
        assert limit_scale(4.0, (4096, 4096)) == 2**0.5
        assert limit_scale(4.0, (40960, 4096)) == 1.0
        assert limit_scale(0.5, (40960, 4096)) == 0.5

    def test_no_side_vanishes(self):
        assert scaled_shape((1, 300), 0.25) == (1, 75)


class TestRescale:
    def test_reduced_pixels_are_means(self):
        image = np.random.default_rng(0).random((12, 20), dtype=np.float32)
        means = image.reshape(6, 2, 10, 2).mean(axis=(1, 3))
        np.testing.assert_allclose(rescale(image, (6, 10)), means, rtol=1e-6)

    def test_a_ramp_stays_one_and_edges_stay_edges(self):
        ramp = np.tile(np.arange(40, dtype=np.float32) + 0.5, (8, 1))
        for side in (20, 57, 80):
            found = rescale(ramp, (8, side))[3]
            expected = (np.arange(side) + 0.5) * 40 / side
            np.testing.assert_allclose(found[2:-2], expected[2:-2], atol=0.3)

    def test_same_shape_is_the_image_itself(self):
        image = np.zeros((8, 9), dtype=np.float32)
        assert rescale(image, (8, 9)) is image


@st.composite
def label_images(draw):
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    values = draw(st.integers(0, 2**31))
    coarse = np.random.default_rng(values).integers(0, 7, (6, 6)).astype(np.int32)
    labels = coarse[np.arange(shape[0]) % 6][:, np.arange(shape[1]) % 6]
    numbers = np.unique(labels[labels > 0])
    return np.searchsorted(np.r_[0, numbers], labels).astype(np.int32)


class TestRestoreLabels:
    @given(label_images(), st.tuples(st.integers(1, 60), st.integers(1, 60)))
    def test_against_a_loop_over_centres(self, labels, shape):
        restored = restore_labels(labels, shape)
        height, width = labels.shape
        slow = np.array(
            [
                [
                    labels[
                        int((row + 0.5) * height / shape[0]),
                        int((column + 0.5) * width / shape[1]),
                    ]
                    for column in range(shape[1])
                ]
                for row in range(shape[0])
            ]
        )
        there = np.unique(slow[slow > 0])
        np.testing.assert_array_equal(restored > 0, slow > 0)
        # In their order, without gaps: the largest label is the count.
        assert restored.max() == len(there)
        for number, label in enumerate(there, start=1):
            np.testing.assert_array_equal(restored == number, slow == label)

    def test_a_nucleus_smaller_than_a_pixel_is_not_counted(self):
        labels = np.zeros((8, 8), dtype=np.int32)
        labels[0, 0] = 1
        labels[4:8, 4:8] = 2
        restored = restore_labels(labels, (4, 4))
        assert restored.max() == 1
        assert (restored[2:, 2:] == 1).all()


class TestLabelAtSize:
    def draw(self, scale):
        mask = draw_disks((240, 300), 22, 60)
        maps = rescale(mask.astype(np.float32), scaled_shape(mask.shape, scale))
        return mask, maps[..., np.newaxis]

    def test_outlines_of_reduced_images_fall_between_pixels(self):
        mask, maps = self.draw(0.5)
        stepped = restore_labels(label_nuclei(maps, SETTINGS), mask.shape)
        found = label_at_size(maps, mask.shape, SETTINGS)
        assert found.max() == stepped.max() == 20
        assert np.sum((found > 0) != mask) < 0.7 * np.sum((stepped > 0) != mask)

    @pytest.mark.parametrize("scale", [0.5, 0.71, 1.0, 1.41])
    def test_the_smallest_area_is_one_of_the_maps(self, scale):
        mask, maps = self.draw(scale)
        labels, areas = label_all_at_size(maps, mask.shape, SETTINGS)
        assert (labels.max(), len(areas), areas[0]) == (20, 21, 0)
        assert areas[1:] == pytest.approx(np.pi * (11 * scale) ** 2, rel=0.08)
        for least in (int(areas[1:].min()), int(areas.max()) + 1):
            settings = SETTINGS.model_copy(update={"min_area_px": least})
            count = label_at_size(maps, mask.shape, settings).max()
            assert count == np.sum(areas >= least)


class TestSegment:
    @pytest.mark.parametrize("scale", [0.5, 0.71, 1.41, 2.0])
    def test_disks_are_found_again_at_their_size(self, scale):
        mask = draw_disks((240, 300), 22, 60)
        image = (mask * 200).astype(np.uint8)
        maps = rescale(mask.astype(np.float32), scaled_shape(mask.shape, scale))
        labels, summary = segment_nuclei(image, maps[..., np.newaxis], SETTINGS)
        assert labels.shape == image.shape
        assert summary.count == labels.max() == 20
        truth = cv2.connectedComponents(mask.astype(np.uint8))[1]
        for number in range(1, 21):
            true = truth == truth[labels == number].max()
            found = labels == number
            assert (true & found).sum() / (true | found).sum() > 0.85
        assert summary.mean_area_px == pytest.approx(np.pi * 11**2, rel=0.08)
        assert summary.foreground_share == pytest.approx(mask.mean(), rel=0.08)
        assert summary.border_count == 0
        assert summary.confidence > 0.85

    def test_summary_is_that_of_the_labels(self):
        rng = np.random.default_rng(4)
        maps = cv2.GaussianBlur(rng.random((90, 70), dtype=np.float32), (0, 0), 2)
        maps = (maps - maps.min()) / np.ptp(maps)
        image = rng.integers(0, 256, (45, 35)).astype(np.uint8)
        labels, summary = segment_nuclei(image, maps[..., np.newaxis], SETTINGS)
        restored = cv2.resize(maps, (35, 45))[..., np.newaxis]
        assert summary == summarise(image, restored, labels)
        assert summary.count > 3

    def test_at_the_same_size_it_is_the_usual_count(self):
        rng = np.random.default_rng(5)
        maps = cv2.GaussianBlur(rng.random((64, 64), dtype=np.float32), (0, 0), 2)
        maps = ((maps - maps.min()) / np.ptp(maps))[..., np.newaxis]
        image = rng.integers(0, 256, (64, 64)).astype(np.uint8)
        labels, summary = segment_nuclei(image, maps, SETTINGS)
        np.testing.assert_array_equal(labels, label_nuclei(maps, SETTINGS))
        assert summary == count_nuclei(image, maps, SETTINGS)

    def test_nothing_is_found_in_nothing(self):
        maps = np.full((20, 20, 1), 0.2, dtype=np.float32)
        labels, summary = segment_nuclei(np.zeros((40, 40)), maps, SETTINGS)
        assert (labels.shape, labels.max(), summary.count) == ((40, 40), 0, 0)
        assert summary.confidence is None

    def test_output_that_is_not_finite_is_refused(self):
        maps = np.full((20, 20, 1), np.nan, dtype=np.float32)
        with pytest.raises(ValueError, match="not finite"):
            segment_nuclei(np.zeros((40, 40)), maps, SETTINGS)
