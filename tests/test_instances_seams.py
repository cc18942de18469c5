"""Nuclei with seeds, in blocks: counted as in one piece."""

import itertools
from dataclasses import replace

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
    summarise_block,
)
from tests.test_instances_blocks import cut
from tests.test_instances_seeds import draw_noise, noises

DEFAULT = InstancesConfig()
LEVELS = {".": (0.1, 0.1), "o": (0.9, 0.3), "#": (0.9, 0.9)}


def draw(text):
    """Maps from a picture: `#` is seed, `o` the rest of a nucleus."""
    return np.array(
        [[LEVELS[pixel] for pixel in row] for row in text.split()], np.float32
    )


def make_blocks(maps, rows, columns, settings=DEFAULT):
    """Every block through its bytes, as between two workers."""
    image = np.zeros(maps.shape[:2], np.uint8)
    return [
        (
            core,
            BlockSummary.from_bytes(
                summarise_block(
                    image[core], maps[core], core, image.shape, settings, limit=None
                ).to_bytes()
            ),
        )
        for core in itertools.product(rows, columns)
    ]


def count_in_blocks(maps, rows, columns, settings=DEFAULT):
    parts = make_blocks(maps, rows, columns, settings)
    return join_blocks(parts, maps.shape[:2], settings)


def count_whole(maps, settings=DEFAULT):
    return count_nuclei(np.zeros(maps.shape[:2], np.uint8), maps, settings)


def compare_all_but_border(found, whole):
    assert found.count == whole.count
    assert found.foreground_share == whole.foreground_share
    assert found.mean_area_px == whole.mean_area_px
    assert found.confidence == whole.confidence


def draw_edges(data, length):
    return cut(length, data.draw(st.lists(st.integers(0, length), max_size=6)))


class TestEqualsTheWhole:
    @examples(deadline=None, max_examples=300)
    @given(noises, st.integers(0, 1), st.data())
    def test_any_map_any_grid(self, maps, min_area_px, data):
        settings = InstancesConfig(min_area_px=min_area_px)
        rows, columns = (draw_edges(data, side) for side in maps.shape[:2])
        parts = data.draw(st.permutations(make_blocks(maps, rows, columns, settings)))
        found = join_blocks(parts, maps.shape[:2], settings)
        compare_all_but_border(found, count_whole(maps, settings))
        assert found.count == label_nuclei(maps, settings).max()

    @examples(deadline=None, max_examples=30)
    @given(noises)
    def test_blocks_of_one_pixel(self, maps):
        maps = maps[:16, :16]
        rows, columns = (cut(side, range(side)) for side in maps.shape[:2])
        found = count_in_blocks(maps, rows, columns)
        compare_all_but_border(found, count_whole(maps))

    @examples(deadline=None, max_examples=150)
    @given(noises, st.integers(0, 40), st.data())
    def test_where_none_touch_all_figures_are_those(self, maps, min_area_px, data):
        # One seed in each component, or none: then areas do not depend on flooding.
        settings = InstancesConfig(min_area_px=min_area_px)
        components, n_components = ndimage.label(maps[..., 0] > 0.5, np.ones((3, 3)))
        peaks = ndimage.maximum_position(
            maps[..., 1], components, range(1, n_components + 1)
        )
        maps[..., 1] *= 0.4
        for row, column in peaks[::2]:
            near = (
                slice(max(row - 1, 0), row + 2),
                slice(max(column - 1, 0), column + 2),
            )
            at_peak = components[near] == components[row, column]
            maps[..., 1][near][at_peak] = 0.9
        rows, columns = (draw_edges(data, side) for side in maps.shape[:2])
        found = count_in_blocks(maps, rows, columns, settings)
        # Blocks of a few pixels are too small to judge the image by.
        whole = count_whole(maps, settings)
        assert replace(found, flags="") == replace(whole, flags="")

    @pytest.mark.parametrize("blur", [1.0, 2.5])
    def test_at_size(self, blur):
        maps = draw_noise(5, (700, 900), blur)
        whole = count_whole(maps)
        assert whole.count > 300
        rows, columns = cut(700, range(0, 700, 64)), cut(900, [100, 101, 500])
        compare_all_but_border(count_in_blocks(maps, rows, columns), whole)

    def test_few_counts_depend_on_the_blocks_with_a_smallest_area(self):
        # Seams through one nucleus in six, and small ones: far more than there are.
        settings = InstancesConfig(min_area_px=20)
        differences = []
        for seed in range(8):
            maps = draw_noise(seed, (256, 256))
            whole = count_whole(maps, settings)
            lines = cut(256, range(0, 256, 128))
            found = count_in_blocks(maps, lines, lines, settings)
            differences.append((found.count - whole.count) / whole.count)
            assert abs(found.border_count - whole.border_count) <= 2
        assert np.abs(differences).mean() < 0.01


class TestJoin:
    def test_a_seed_on_the_seam_is_one(self):
        maps = draw("oooooo oo##oo oooooo")
        for column in range(1, 6):
            found = count_in_blocks(maps, cut(3, []), cut(6, [column]))
            assert (found.count, found.mean_area_px) == (1, 18)

    def test_seeds_that_only_their_nuclei_join_are_two(self):
        maps = draw("oooooo o#oo#o oooooo")
        for column in range(1, 6):
            assert count_in_blocks(maps, cut(3, []), cut(6, [column])).count == 2

    def test_seeds_across_the_corner_of_four_blocks(self):
        lines = cut(4, [2])
        for picture in ("oooo o#oo oo#o oooo", "oooo oo#o o#oo oooo"):
            found = count_in_blocks(draw(picture), lines, lines)
            assert (found.count, found.mean_area_px) == (1, 16)

    @pytest.mark.parametrize(
        "picture", [".#o..oo#o .oo..oooo ooooooooo", "oo#o..o#. oooo..oo. ooooooooo"]
    )
    def test_a_part_without_a_seed_goes_to_the_longest_contact(self, picture):
        # The last row: to the nucleus of 8 pixels, not to that of 5.
        maps = draw(picture)
        upper = make_blocks(maps, cut(3, [2]), cut(9, []))[0][1]
        smaller, larger = sorted(upper.areas.tolist())
        assert smaller < 6 < larger
        for least, count in (
            (smaller, 2),
            (smaller + 1, 1),
            (larger + 9, 1),
            (larger + 10, 0),
        ):
            settings = InstancesConfig(min_area_px=least)
            found = count_in_blocks(maps, cut(3, [2]), cut(9, []), settings)
            assert found.count == count

    def test_parts_without_a_seed_are_joined_first(self):
        # The right half touches no seeded nucleus but through the lower left one.
        maps = draw("o#o.o. ooo.oo oooooo oooooo")
        for rows in ([2], [1, 2], [3]):
            found = count_in_blocks(maps, cut(4, rows), cut(6, [3]))
            assert (found.count, found.mean_area_px) == (1, 21)

    def test_parts_that_touch_no_seed_are_a_nucleus(self):
        maps = draw("oo..#. oo.... oo....")
        settings = InstancesConfig(min_area_px=6)
        for row, column in itertools.product((1, 2), (1, 2, 3)):
            lines = cut(3, [row]), cut(6, [column])
            found = count_in_blocks(maps, *lines)
            assert (found.count, found.mean_area_px) == (2, 3.5)
            assert count_in_blocks(maps, *lines, settings).count == 1

    def test_areas_of_the_parts_add_up(self):
        maps = draw(".oo. o##o o##o .oo.")
        lines = cut(4, [2])
        for min_area_px, count in ((12, 1), (13, 0)):
            settings = InstancesConfig(min_area_px=min_area_px)
            assert count_in_blocks(maps, lines, lines, settings).count == count

    def test_the_edges_say_what_is_seed(self):
        maps = draw("oo..#. oo..#. #...oo")
        block = make_blocks(maps, cut(3, []), cut(6, [1, 4]))[0][1]
        assert block.right.tolist() == [-1, -1, 1]
        assert block.is_seeded.tolist() == [True]
        block = make_blocks(maps, cut(3, []), cut(6, [5]))[0][1]
        assert block.right.tolist() == [1, 1, -1]

    def test_a_seed_threshold_that_differs(self):
        maps = draw_noise(0, (20, 20))
        parts = make_blocks(maps, cut(20, [9]), cut(20, []))
        settings = InstancesConfig(seed_threshold=0.6)
        for other in (settings, InstancesConfig(method="components")):
            with pytest.raises(ValueError, match="seed_threshold"):
                join_blocks(parts, (20, 20), other)
        with_method = InstancesConfig(method="watershed")
        assert join_blocks(parts, (20, 20), with_method).count > 0

    def test_blocks_with_and_without_seeds(self):
        maps = draw_noise(0, (20, 20))
        lines = cut(20, [9]), cut(20, [])
        parts = make_blocks(maps, *lines)
        bare = make_blocks(maps[..., :1], *lines)
        with pytest.raises(ValueError, match="some without"):
            join_blocks([parts[0], bare[1]], (20, 20), DEFAULT)
        with pytest.raises(ValueError, match="seed_threshold"):
            join_blocks(bare, (20, 20), InstancesConfig(method="watershed"))
