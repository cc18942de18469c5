"""Nuclei that touch are parted by their seeds, with Kruskal's forest as oracle."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy import ndimage

from nucleiseg.config import InstancesConfig
from nucleiseg.errors import ConfigError
from nucleiseg.instances import count_nuclei, flooding, label_nuclei, summarise

EIGHT = np.ones((3, 3))


def flood(heights, mask, seeds):
    labels = seeds.copy()
    flooding.flood(heights, mask, labels)
    return labels


def find_forest(heights, mask, seeds):
    """Join pixels over the highest edges first, but never two seeds."""
    parents = {tuple(pixel): tuple(pixel) for pixel in np.argwhere(mask)}
    labels = {pixel: int(seeds[pixel]) for pixel in parents}

    def find(pixel):
        while parents[pixel] != pixel:
            pixel = parents[pixel]
        return pixel

    first = {}
    for pixel, number in labels.items():
        if number:
            parents[pixel] = first.setdefault(number, pixel)
    edges = [
        (*sorted((heights[one], heights[other])), one, other)
        for one in parents
        for other in parents
        if one < other and max(abs(one[0] - other[0]), abs(one[1] - other[1])) == 1
    ]
    for *_, one, other in sorted(edges, reverse=True):
        roots = find(one), find(other)
        if roots[0] != roots[1] and not all(labels[root] for root in roots):
            low, high = sorted(roots, key=labels.get)
            parents[low] = high
    found = np.zeros(mask.shape, np.int32)
    for pixel in parents:
        found[pixel] = labels[find(pixel)]
    return found


@st.composite
def terrains(draw):
    """Heights that are all different, a mask, and seeds of several pixels in it."""
    shape = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    heights = rng.permutation(shape[0] * shape[1]).reshape(shape).astype(np.float32)
    mask = rng.random(shape) < draw(st.sampled_from([0.5, 0.8, 1]))
    seeds = rng.integers(1, 6, shape, dtype=np.int32)
    seeds[(rng.random(shape) > draw(st.sampled_from([0.05, 0.2]))) | ~mask] = 0
    return heights, mask, seeds


def draw_noise(seed, shape, blur=2.5):
    """Maps with nuclei of all shapes, many with several seeds, many without."""
    rng = np.random.default_rng(seed)
    maps = ndimage.gaussian_filter(
        rng.standard_normal((*shape, 2)).astype(np.float32), (blur, blur, 0)
    )
    # To a standard deviation of 1, about.
    maps *= 2 * blur * np.sqrt(np.pi)
    maps[..., 1] += maps[..., 0] / 2
    return (maps / 6 + [0.45, 0.4]).clip(0, 1).astype(np.float32)


noises = st.builds(
    draw_noise,
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([0.6, 1.0, 2.0]),
)


def find_seeds(maps, settings):
    mask = maps[..., 0] > np.float32(settings.threshold)
    return mask, mask & (maps[..., 1] > np.float32(settings.seed_threshold))


class TestFlood:
    @examples(deadline=None, max_examples=300)
    @given(terrains())
    def test_against_kruskal(self, terrain):
        np.testing.assert_array_equal(flood(*terrain), find_forest(*terrain))

    def test_over_the_highest_pass(self):
        # The peak of 4 has no seed: it is joined over the pass of 2, not that of 1.
        heights = np.array([[9, 1, 4, 2, 3, 8]], np.float32)
        seeds = np.array([[1, 0, 0, 0, 0, 2]], np.int32)
        found = flood(heights, np.ones((1, 6), bool), seeds)
        assert found.tolist() == [[1, 1, 2, 2, 2, 2]]

    def test_of_equal_heights_to_the_nearer_seed(self):
        heights = np.full((7, 60), 0.25, np.float32)
        seeds = np.zeros((7, 60), np.int32)
        seeds[3, 9], seeds[3, 50] = 1, 2
        found = flood(heights, np.ones((7, 60), bool), seeds)
        assert (found[:, :30] == 1).all()
        assert (found[:, 30:] == 2).all()

    def test_without_a_seed_or_without_a_mask(self):
        heights = np.ones((4, 5), np.float32)
        nothing = np.zeros((4, 5), np.int32)
        assert not flood(heights, np.ones((4, 5), bool), nothing).any()
        assert not flood(heights, np.zeros((4, 5), bool), nothing).any()

    def test_zeros_of_both_signs_are_equal(self):
        heights = np.array([[0.5, -0.0, -0.0, 0.0, 0.0, 0.5]], np.float32)
        seeds = np.array([[1, 0, 0, 0, 0, 2]], np.int32)
        found = flood(heights, np.ones((1, 6), bool), seeds)
        assert found.tolist() == [[1, 1, 1, 2, 2, 2]]


class TestLabelNuclei:
    @examples(deadline=None, max_examples=150)
    @given(noises)
    def test_one_nucleus_a_seed_and_one_a_component_without(self, maps):
        settings = InstancesConfig()
        mask, seeds = find_seeds(maps, settings)
        labels = label_nuclei(maps, settings)
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels > 0, mask)
        components, n_components = ndimage.label(mask, EIGHT)
        seed_labels, n_seeds = ndimage.label(seeds, EIGHT)
        n_seedless = n_components - len(set(components[seeds]))
        assert labels.max() == n_seeds + n_seedless
        for number in range(1, labels.max() + 1):
            nucleus = labels == number
            assert ndimage.label(nucleus, EIGHT)[1] == 1
            assert len(set(components[nucleus])) == 1
            found = set(seed_labels[nucleus & seeds])
            if found:
                (seed,) = found
                assert (labels[seed_labels == seed] == number).all()
            else:
                assert not seeds[components == components[nucleus][0]].any()

    def test_the_maps_of_these_tests_have_all_kinds(self):
        mask, seeds = find_seeds(draw_noise(0, (300, 300)), InstancesConfig())
        components, n_components = ndimage.label(mask, EIGHT)
        seed_labels, n_seeds = ndimage.label(seeds, EIGHT)
        owners = ndimage.maximum(components, seed_labels, range(1, n_seeds + 1))
        n_each = np.bincount(owners.astype(int), minlength=n_components + 1)[1:]
        assert min((n_each == 0).sum(), (n_each == 1).sum(), (n_each > 1).sum()) > 10

    def test_touching_disks_are_parted_where_they_touch(self):
        rows, columns = np.indices((40, 64))
        centers = [(20, 20), (20, 42)]
        distances = [np.hypot(rows - r, columns - c) for r, c in centers]
        depth = np.max([1 - distance / 12 for distance in distances], axis=0)
        maps = np.stack([depth > 0, depth.clip(0)], axis=-1).astype(np.float32)
        labels = label_nuclei(maps, InstancesConfig())
        assert labels.max() == 2
        nearest = 1 + np.argmin(distances, axis=0)
        apart = distances[0] != distances[1]
        inside = (depth > 0) & apart
        np.testing.assert_array_equal(labels[inside], nearest[inside])
        only_mask = InstancesConfig(method="components")
        assert label_nuclei(maps, only_mask).max() == 1

    @examples(deadline=None, max_examples=60)
    @given(noises, st.integers(0, 30))
    def test_small_ones_are_dropped_and_the_others_keep_their_order(
        self, maps, min_area_px
    ):
        every = label_nuclei(maps, InstancesConfig())
        areas = np.bincount(every.ravel())
        keep = areas >= min_area_px
        keep[0] = False
        expected = (np.cumsum(keep) * keep)[every]
        found = label_nuclei(maps, InstancesConfig(min_area_px=min_area_px))
        np.testing.assert_array_equal(found, expected)

    @examples(deadline=None, max_examples=60)
    @given(noises, noises, st.integers(0, 20), st.integers(0, 20))
    def test_wherever_it_lies_and_whatever_lies_beside(self, maps, other, top, left):
        height, width = maps.shape[:2]
        shape = (top + height + 1 + other.shape[0], left + width + other.shape[1], 2)
        field = np.zeros(shape, np.float32)
        field[top : top + height, left : left + width] = maps
        field[top + height + 1 :, : other.shape[1]] = other
        found = label_nuclei(field, InstancesConfig())
        found = found[top : top + height, left : left + width]
        alone = label_nuclei(maps, InstancesConfig())
        pairs = set(zip(found.ravel().tolist(), alone.ravel().tolist(), strict=True))
        assert len(pairs) == len(np.unique(alone)) == len(np.unique(found))

    def test_for_any_number_of_threads(self):
        maps = draw_noise(1, (700, 600))
        before = cv2.getNumThreads()
        try:
            found = []
            for n_threads in (1, 4):
                cv2.setNumThreads(n_threads)
                found.append(label_nuclei(maps, InstancesConfig()))
        finally:
            cv2.setNumThreads(before)
        np.testing.assert_array_equal(*found)

    @pytest.mark.parametrize("method", ["auto", "components"])
    def test_without_a_marker_components_are_nuclei(self, method):
        maps = draw_noise(2, (60, 60))
        settings = InstancesConfig(method=method)
        expected = label_nuclei(maps, InstancesConfig(method="components"))
        np.testing.assert_array_equal(label_nuclei(maps[..., :1], settings), expected)
        assert expected.max() < label_nuclei(maps, InstancesConfig()).max()

    def test_watershed_without_a_marker_is_refused(self):
        maps = draw_noise(2, (30, 30))
        settings = InstancesConfig(method="watershed")
        assert label_nuclei(maps, settings).max() > 1
        for label in (label_nuclei, lambda *args: count_nuclei(maps, *args)):
            with pytest.raises(ConfigError, match=r"no marker map .*method=auto"):
                label(maps[..., :1], settings)

    @pytest.mark.parametrize("shape", [(5, 6), (5, 6, 0), (5, 6, 3)])
    def test_maps_of_another_shape_are_refused(self, shape):
        with pytest.raises(ValueError, match=r"expected \(H, W, C\)"):
            label_nuclei(np.zeros(shape, np.float32), InstancesConfig())


class TestCountNuclei:
    @examples(deadline=None, max_examples=100)
    @given(noises, st.integers(0, 30))
    def test_as_the_label_image_says(self, maps, min_area_px):
        settings = InstancesConfig(min_area_px=min_area_px)
        image = (maps[..., 0] * 255).astype(np.uint8)
        labels = label_nuclei(maps, settings)
        found = count_nuclei(image, maps, settings)
        assert found == summarise(image, maps, labels)
        assert found.count == labels.max()
        edge = {*labels[0], *labels[-1], *labels[:, 0], *labels[:, -1]} - {0}
        assert found.border_count == len(edge)
        if found.count:
            mean = maps[..., 0][labels > 0].mean(dtype=np.float64)
            assert found.confidence == pytest.approx(float(mean), abs=1e-4)

    def test_without_seeds_components_are_counted(self):
        maps = draw_noise(3, (120, 120))
        image = np.zeros((120, 120), np.uint8)
        maps[..., 1] = 0.4
        as_components = InstancesConfig(method="components")
        expected = count_nuclei(image, maps, as_components)
        assert count_nuclei(image, maps, InstancesConfig()) == expected
        assert expected.count > 5

    def test_a_seed_outside_the_foreground_is_none(self):
        maps = np.zeros((9, 9, 2), np.float32)
        maps[..., 1] = 0.9
        image = np.zeros((9, 9), np.uint8)
        assert count_nuclei(image, maps, InstancesConfig()).count == 0
        maps[4, 4, 0] = 0.9
        assert count_nuclei(image, maps, InstancesConfig()).count == 1

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("channel", [0, 1])
    @pytest.mark.parametrize("others", [0.1, 0.9])
    def test_not_finite(self, value, channel, others):
        maps = np.full((5, 6, 2), others, np.float32)
        maps[2, 3, channel] = value
        with pytest.raises(ValueError, match=r"^not finite$"):
            count_nuclei(maps[..., 0], maps, InstancesConfig())

    def test_maps_are_unchanged(self):
        maps = draw_noise(4, (40, 40))
        before = maps.copy()
        maps.flags.writeable = False
        count_nuclei(maps[..., 0], maps, InstancesConfig(min_area_px=4))
        label_nuclei(maps, InstancesConfig(min_area_px=4))
        np.testing.assert_array_equal(maps, before)
