"""The label image of an image in blocks is that of the image in one piece."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy import ndimage

from nucleiseg.config import InstancesConfig
from nucleiseg.instances import (
    BlockSummary,
    count_nuclei,
    join_blocks,
    label_nuclei,
    number_blocks,
    segment_nuclei,
    summarise_block,
)
from tests.test_instances_blocks import cut, noise, thin_maps
from tests.test_instances_seeds import noises


def label_in_blocks(maps, rows, columns, settings, order=None):
    """Labels through all blocks, summaries through their bytes; and the count."""
    shape = maps.shape[:2]
    image = np.zeros(shape, np.uint8)
    cores = list(itertools.product(rows, columns))
    parts, labels = [], []
    for core in cores if order is None else [cores[place] for place in order]:
        arguments = image[core], maps[core], core, shape, settings
        its_labels = np.full(image[core].shape, -1, np.int32)
        data = summarise_block(*arguments, limit=None, out=its_labels).to_bytes()
        assert data == summarise_block(*arguments, limit=None).to_bytes()
        parts.append((core, BlockSummary.from_bytes(data)))
        labels.append(its_labels)
    whole = np.zeros(shape, np.uint32)
    numbers = number_blocks(parts, shape, settings)
    for (core, summary), its_labels, its_numbers in zip(
        parts, labels, numbers, strict=True
    ):
        assert len(its_numbers) == 1 + summary.finished.count + summary.n_open
        whole[core] = its_numbers[its_labels]
    return whole, join_blocks(parts, shape, settings).count


def assert_same_nuclei(one, other):
    """The same pixels for each nucleus, whatever their numbers; without gaps."""
    assert one.max() == other.max()
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(one)) == len(np.unique(other))
    assert np.unique(one[one > 0]).tolist() == list(range(1, int(one.max()) + 1))


class TestBlocks:
    @examples(deadline=None, max_examples=300)
    @given(thin_maps() | noise, st.integers(0, 20), st.data())
    def test_any_map_any_grid(self, probability, min_area_px, data):
        height, width = probability.shape
        settings = InstancesConfig(min_area_px=min_area_px)
        rows = cut(height, data.draw(st.lists(st.integers(0, height), max_size=5)))
        columns = cut(width, data.draw(st.lists(st.integers(0, width), max_size=5)))
        order = data.draw(st.permutations(range(len(rows) * len(columns))))
        maps = probability[..., np.newaxis]
        found, count = label_in_blocks(maps, rows, columns, settings, order)
        assert_same_nuclei(found, label_nuclei(maps, settings))
        assert found.max() == count
        # Whoever computed which block when: the numbers are the same.
        again, _ = label_in_blocks(maps, rows, columns, settings)
        np.testing.assert_array_equal(found, again)

    @examples(deadline=None, max_examples=100)
    @given(noises, st.integers(0, 20), st.data())
    def test_with_seeds(self, maps, min_area_px, data):
        """As counted; but for the smallest area, the same pixels are nuclei."""
        settings = InstancesConfig(min_area_px=min_area_px)
        lines = [
            cut(side, data.draw(st.lists(st.integers(0, side), max_size=5)))
            for side in maps.shape[:2]
        ]
        found, count = label_in_blocks(maps, *lines, settings)
        assert np.unique(found[found > 0]).tolist() == list(range(1, count + 1))
        if min_area_px <= 1:
            whole = label_nuclei(maps, settings)
            assert count == whole.max()
            np.testing.assert_array_equal(found > 0, whole > 0)
        areas = np.bincount(found.ravel())[1:]
        assert all(areas >= min_area_px)

    def test_a_part_goes_to_the_nucleus_that_stands_for_it(self):
        """One with a seed, though it lies in a later block."""
        maps = np.zeros((4, 6, 2), np.float32)
        maps[:, 1:5] = 0.9, 0.3
        maps[3, 2:4, 1] = 0.9
        found, count = label_in_blocks(maps, cut(4, [2]), cut(6, []), InstancesConfig())
        assert count == 1
        np.testing.assert_array_equal(found, maps[..., 0] > 0)

    def test_numbers_follow_the_blocks(self):
        rng = np.random.default_rng(5)
        field = ndimage.gaussian_filter(rng.random((200, 300), np.float32), 3)
        maps = ((field - field.mean()) / field.std() / 4 + 0.5)[..., np.newaxis]
        lines = cut(200, [70, 130]), cut(300, [100, 110])
        found, count = label_in_blocks(maps, *lines, InstancesConfig())
        assert count > 30
        # Of components the first open part stands for all of them.
        highest = 0
        for core in itertools.product(*lines):
            fresh = np.unique(found[core][found[core] > highest])
            assert fresh.tolist() == list(range(highest + 1, highest + 1 + len(fresh)))
            highest += len(fresh)
        assert highest == count


class TestSegmentNuclei:
    @examples(deadline=None, max_examples=100)
    @given(thin_maps() | noise, st.integers(0, 9), st.sampled_from([0.5, 0.004]))
    def test_it_is_labels_and_count(self, probability, min_area_px, threshold):
        maps = probability[..., np.newaxis]
        image = (probability * 255).astype(np.uint8)
        settings = InstancesConfig(min_area_px=min_area_px, threshold=threshold)
        labels, summary = segment_nuclei(image, maps, settings)
        np.testing.assert_array_equal(labels, label_nuclei(maps, settings))
        assert labels.dtype == np.int32
        assert summary == count_nuclei(image, maps, settings)
        assert summary.count == labels.max()

    @pytest.mark.parametrize("n_maps", [1, 2])
    def test_empty(self, n_maps):
        maps = np.zeros((5, 6, n_maps), np.float32)
        labels, summary = segment_nuclei(maps[..., 0], maps, InstancesConfig())
        assert labels.shape == (5, 6)
        assert not labels.any()
        assert summary.count == 0

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_not_finite(self, value):
        maps = np.zeros((5, 6, 1), np.float32)
        maps[2, 3] = value
        with pytest.raises(ValueError, match=r"^not finite$"):
            segment_nuclei(maps[..., 0], maps, InstancesConfig())
